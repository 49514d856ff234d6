// The form that says how tokens are drawn. The server checks the values; what it refuses is marked here.

const ESCAPES = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

export class SamplingForm {
  constructor(form, summary) {
    this.form = form;
    this.summary = summary;
    form.addEventListener("input", () => this.#tell());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#tell();
  }

  /** The fields of a request. What is left empty keeps the server's default. */
  get fields() {
    const found = {};
    for (const input of this.form.elements) {
      if (input.name !== "stop" && input.value !== "") found[input.name] = Number(input.value);
    }
    const stops = this.form.elements.stop.value.split("\n").filter((line) => line !== "");
    if (stops.length) found.stop = stops.map((line) => line.replace(/\\[nt\\]/g, (pair) => ESCAPES[pair]));
    return found;
  }

  /** Mark the field that the server has refused, or none. Returns whether there is such a field. */
  mark(name) {
    for (const input of this.form.elements) input.removeAttribute("aria-invalid");
    const input = name ? this.form.elements.namedItem(name) : null;
    if (!input) return false;
    input.setAttribute("aria-invalid", "true");
    input.closest("details").open = true;
    return true;
  }

  #tell() {
    const { temperature = 1, max_tokens: most = 16, seed } = this.fields;
    const kind = temperature === 0 ? "most likely token" : `temperature ${temperature}`;
    this.summary.textContent = `${kind}, ${most} tokens${seed === undefined ? "" : `, seed ${seed}`}`;
  }
}
