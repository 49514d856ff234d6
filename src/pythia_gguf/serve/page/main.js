// The page: what its buttons do, and what it shows after each of them.

import { showAlternatives } from "./alternatives.js";
import { showBranches } from "./branches.js";
import { askForKey } from "./key_dialog.js";
import { ModelPicker } from "./pickers.js";
import * as reader from "./reader.js";
import { SamplingForm } from "./sampling.js";
import * as server from "./server.js";
import { TextView } from "./text_view.js";
import { Tree } from "./tree.js";
import { SCALES, nats, percent, showToken, textOf } from "./visible.js";

const $ = (id) => document.getElementById(id);
const ENDS = { length: "most tokens reached", stop: "the text has ended" };

let tree = new Tree();
// The token whose alternatives are shown, or null.
let selected = null;
// What is being done: an AbortController, or null.
let task = null;
let frame = null;

const model = new ModelPicker($("picker-model"), { label: "Model", none: null, onChange: readAgain });
const other = new ModelPicker($("picker-other"), { label: "Side by side with", none: "no other", onChange: readAgain });
const sampling = new SamplingForm($("sampling-form"), $("sampling-summary"));
const views = [$("tokens"), $("tokens-other")].map((place) => new TextView(place, { onChoose: select, onPeek: peek }));

/** The models whose text is shown: one, or two that differ. */
function modelsShown() {
  const names = [model.model, other.model];
  return names[1] === null || names[1] === names[0] ? names.slice(0, 1) : names;
}

/** Do one thing at a time: what was begun before is stopped. Its errors become a line. */
async function run(doing, work) {
  task?.abort();
  const own = new AbortController();
  task = own;
  showError(null);
  showBusy(doing);
  let done = "";
  try {
    done = await work({ signal: own.signal, onNews: showSoon });
  } catch (error) {
    if (own.signal.aborted) done = "Stopped.";
    else showError(error);
  }
  if (task !== own) return;
  task = null;
  showBusy(null);
  $("status").textContent = done;
  show();
}

/** Let all models that are shown read the text, and compare them. */
async function readAll(how) {
  const names = modelsShown();
  if (tree.at === tree.root) return;
  for (const name of names) await reader.read(tree, name, how);
  if (names.length > 1) await reader.compare(tree, ...names, how);
}

function readAgain() {
  if (tree.at === tree.root) return show();
  return run("Reading", async (how) => {
    await readAll(how);
    return "";
  });
}

function writeFrom(idsOf) {
  $("text").scrollIntoView({ block: "nearest" });
  return run("Writing", async (how) => {
    const ids = await idsOf(how.signal);
    const { n, reason } = await reader.write(tree, model.model, ids, sampling.fields, how);
    await readAll(how);
    return `${n === 1 ? "1 token" : `${n} tokens`}, ${ENDS[reason]}.`;
  });
}

const promptIds = (signal) => server.tokenize(model.model, $("prompt").value, signal);
const writePrompt = () => {
  select(null);
  return writeFrom(promptIds);
};
const goOn = () => writeFrom(async () => tree.at.path.map((node) => node.id));

function readPrompt() {
  select(null);
  return run("Reading", async (how) => {
    const ids = await promptIds(how.signal);
    if (!ids.length) throw new Error("There is nothing to read: write a prompt first.");
    await reader.write(tree, model.model, ids, { max_tokens: 0 }, how);
    await readAll(how);
    return ids.length === 1 ? "1 token read." : `${ids.length} tokens read.`;
  });
}

/** Put a token in the place of the selected one, and write on from there; a branch that is there is walked to. */
function choose(token) {
  const { node, isNew } = reader.choose(tree, selected, token);
  select(node);
  views[0].focus(node);
  return isNew ? goOn() : readAgain();
}

function select(node, { isByKeyboard = false } = {}) {
  const before = selected;
  const wasInside = $("alternatives").contains(document.activeElement);
  selected = node;
  show();
  if (node) views[0].reveal(node);
  if (node && isByKeyboard) $("alternatives-body").querySelector("button:enabled")?.focus();
  if (!node && before && wasInside) views[0].focus(before);
}

function walk(node) {
  tree.walkTo(node);
  select(null);
  return readAgain();
}

function remove(node) {
  if (node.children.length && !window.confirm("Remove this branch with all that follows?")) return;
  task?.abort();
  tree.remove(node);
  select(null);
}

/** Show another tree instead, unless the user wants to keep the one that is there. */
function replaceTree(next) {
  const isKept = tree.root.children.length && !window.confirm("Forget the texts that are here? Save keeps them.");
  if (isKept) return false;
  task?.abort();
  tree = next;
  showError(null);
  $("status").textContent = "";
  select(null);
  return true;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(tree)], { type: "application/json" }));
  link.download = "pythia-tree.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function load(file) {
  let next;
  try {
    next = Tree.parse(await file.text());
  } catch (error) {
    showError(new Error(`${file.name} is no tree that this page has saved: ${error.message}.`));
    return;
  }
  if (replaceTree(next)) await readAgain();
}

/** Show everything as it is now. */
function show() {
  if (frame !== null) cancelAnimationFrame(frame);
  frame = null;
  const path = tree.at.path;
  if (selected && !path.includes(selected)) selected = null;
  const names = modelsShown();
  const isPair = names.length > 1;
  const showsDivergence = isPair && document.querySelector("input[name=colour]:checked").value === "divergence";
  const pair = showsDivergence ? reader.pairOf(...names) : null;
  names.forEach((name, i) => views[i].show(path, { model: name, pair, selected }));
  if (!isPair) views[1].show([], { model: null, pair: null, selected: null });
  views.forEach((view, i) => {
    $(`pane-name-${i}`).textContent = names[i] ?? "";
    $(`pane-name-${i}`).hidden = !isPair;
    view.place.parentElement.hidden = i >= names.length || (!path.length && isPair);
  });
  $("colours").hidden = !isPair;
  $("text-empty").hidden = path.length > 0;
  $("panes").classList.toggle("two", isPair);
  $("go-on").disabled = $("copy").disabled = path.length === 0;
  $("peek").hidden = path.length === 0;
  showLegend(SCALES[showsDivergence ? "divergence" : "probability"], showsDivergence ? "d" : "p");
  showFacts(path, names);
  showSelected(names);
  if (task === null) {
    $("plain").textContent = path.length ? `The whole text: ${textOf(path)}` : "";
    $("branches-empty").hidden = tree.root.children.length > 0;
    keepFocus($("branches"), () => showBranches($("branches"), tree, { onWalk: walk, onRemove: remove }));
  }
}

/** Fill a place anew; where one of its buttons had the focus, the button that is in its place then has it. */
function keepFocus(place, fill) {
  const i = [...place.querySelectorAll("button")].indexOf(document.activeElement);
  fill();
  const buttons = place.querySelectorAll("button");
  if (i >= 0) buttons[Math.min(i, buttons.length - 1)]?.focus();
}

/** Show everything with the next picture, however many chunks come before it. */
function showSoon() {
  frame ??= requestAnimationFrame(show);
}

function showSelected(names) {
  const place = $("alternatives-body");
  $("alternatives").classList.toggle("open", selected !== null);
  $("alternatives-empty").hidden = selected !== null;
  $("close-alternatives").hidden = selected === null;
  if (!selected) return place.replaceChildren();
  const kl = names.length > 1 ? (selected.divergences.get(reader.pairOf(...names))?.kl ?? null) : null;
  return keepFocus(place, () => showAlternatives(place, selected, { models: names, kl, onChoose: choose }));
}

function showFacts(path, names) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const facts = path.length ? [`${path.length} tokens`] : [];
  for (const name of names) {
    const known = path.map((node) => node.likelihoods.get(name)?.logprob ?? null).filter((value) => value !== null);
    if (known.length) facts.push(`${names.length > 1 ? `${name}: ` : ""}${nats(-mean(known))} nats a token`);
  }
  if (names.length > 1) {
    const pairs = path.map((node) => node.divergences.get(reader.pairOf(...names))).filter((d) => d && d.kl !== null);
    const same = pairs.filter((pair) => pair.isSameTop).length;
    if (pairs.length) {
      facts.push(`mean divergence ${nats(mean(pairs.map((pair) => pair.kl)))} nats`);
      facts.push(`same most likely token at ${same} of ${pairs.length}`);
    }
  }
  $("facts").textContent = facts.join(" \u00b7 ");
}

function showLegend({ title, labels }, scale) {
  const samples = labels.map((label, step) => {
    const sample = document.createElement("span");
    sample.className = `sample ${scale}${step}`;
    sample.textContent = label;
    return sample;
  });
  const name = document.createElement("span");
  name.className = "scale";
  name.textContent = title;
  $("legend").replaceChildren(name, ...samples);
}

function peek(node) {
  const place = $("peek");
  place.replaceChildren();
  if (!node) return;
  const code = document.createElement("code");
  showToken(code, node, { isAlone: true });
  place.append(code);
  const names = modelsShown();
  const known = names.map((name) => node.likelihoods.get(name)?.logprob ?? null).filter((value) => value !== null);
  place.append(` ${known.map(percent).join(" and ")}`);
  const apart = names.length > 1 ? node.divergences.get(reader.pairOf(...names)) : null;
  if (apart && apart.kl !== null) place.append(`, divergence ${nats(apart.kl)} nats`);
}

function showError(error) {
  sampling.mark(error?.field ?? null);
  $("error").hidden = error === null;
  $("error").textContent = error?.message ?? "";
}

function showBusy(doing) {
  $("stop").hidden = doing === null;
  $("go-on").hidden = doing !== null;
  document.body.classList.toggle("busy", doing !== null);
  if (doing !== null) $("status").textContent = `${doing}\u2026`;
}

function listen() {
  const clicks = {
    write: writePrompt,
    read: readPrompt,
    "go-on": goOn,
    stop: () => task?.abort(),
    copy: () => navigator.clipboard.writeText(textOf(tree.at.path)),
    "close-alternatives": () => select(null),
    new: () => replaceTree(new Tree()),
    save,
    load: () => $("load-file").click(),
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  $("load-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) await load(file);
  });
  $("colours").addEventListener("change", show);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) writePrompt();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && selected && !$("key-dialog").open) select(null);
  });
  // Browsers let only pages that came over HTTPS or from this machine write to the clipboard.
  $("copy").hidden = !navigator.clipboard;
}

listen();
show();
server.onKeyWanted(askForKey);
run("Looking which models there are", async () => {
  const models = await server.models();
  model.fill(models);
  other.fill(models);
  $("picker-other").hidden = models.length < 2;
  return "";
});
