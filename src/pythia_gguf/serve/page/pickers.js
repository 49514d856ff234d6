// Which model reads the text: a list of models, and a slider where a model has several training steps.

const STEP = /@step\d+(?=:|$)/;

/** A list in an element, and a slider below it. */
export class ModelPicker {
  /**
   * none      the text of the first entry, which means no model; null: there is no such entry
   * onChange  called when the user has chosen
   */
  constructor(place, { label, none, onChange }) {
    this.families = [];
    this.onChange = onChange;
    this.none = none;
    this.select = document.createElement("select");
    this.select.id = `${place.id}-name`;
    this.slider = document.createElement("input");
    Object.assign(this.slider, { type: "range", id: `${place.id}-step`, min: 0, step: 1 });
    this.step = document.createElement("output");
    this.step.htmlFor = this.slider.id;
    this.stepRow = document.createElement("div");
    this.stepRow.className = "step-row";
    this.stepRow.append(labelOf(this.slider, "Training step"), this.slider, this.step);
    this.stepRow.hidden = true;
    place.append(labelOf(this.select, label), this.select, this.stepRow);
    this.select.addEventListener("change", () => {
      this.#showSteps();
      this.onChange();
    });
    this.slider.addEventListener("input", () => this.#showStep());
    this.slider.addEventListener("change", () => this.onChange());
  }

  /** Show these models; the first is chosen, or none. */
  fill(models) {
    this.families = familiesOf(models);
    const names = this.families.map((family) => option(family.name));
    this.select.replaceChildren(...(this.none === null ? [] : [option(this.none)]), ...names);
    this.#showSteps();
  }

  /** The name of the model; null for none. */
  get model() {
    const family = this.#family;
    return family ? family.models[family.models.length > 1 ? Number(this.slider.value) : 0].id : null;
  }

  get #family() {
    return this.families[this.select.selectedIndex - (this.none === null ? 0 : 1)];
  }

  #showSteps() {
    const n = this.#family?.models.length ?? 0;
    this.stepRow.hidden = n < 2;
    this.slider.max = Math.max(0, n - 1);
    this.slider.value = this.slider.max;
    this.#showStep();
  }

  #showStep() {
    const step = this.#family?.models[Number(this.slider.value)]?.step ?? null;
    this.step.textContent = step === null ? "" : step.toLocaleString("en");
    this.slider.setAttribute("aria-valuetext", step === null ? "" : `step ${step}`);
  }
}

/** Models that differ in nothing but the training step are one entry. */
function familiesOf(models) {
  const families = new Map();
  for (const model of models) {
    const name = model.step === null ? model.id : model.id.replace(STEP, "");
    const key = `${model.step === null}\n${name}`;
    if (!families.has(key)) families.set(key, { name, models: [] });
    families.get(key).models.push(model);
  }
  for (const family of families.values()) family.models.sort((a, b) => a.step - b.step);
  return [...families.values()];
}

function labelOf(control, text) {
  const label = document.createElement("label");
  label.htmlFor = control.id;
  label.textContent = text;
  return label;
}

function option(text) {
  const element = document.createElement("option");
  element.textContent = text;
  return element;
}
