// Texts as a tree of tokens: which ones there are, where the reader stands, and the file that keeps them.
// It knows neither the page nor the server. docs/serve.md describes the file.

export const FORMAT = "pythia-gguf tree";
export const VERSION = 1;
const ORIGINS = ["prompt", "written", "chosen"];

/** A token in its place: the tokens above it stand before it. The root stands before all of them and is none. */
export class TokenNode {
  constructor(parent, token, origin) {
    this.parent = parent;
    this.id = token.id;
    this.text = token.text;
    // Only where the token is not UTF-8 by itself.
    this.bytes = token.bytes ?? null;
    this.origin = origin;
    this.children = [];
    // The child that was looked at last, which walking down follows.
    this.latest = null;
    // By name of a model: {logprob, top: [{id, text, logprob}]}.
    this.likelihoods = new Map();
    // By names of two models: {kl, isSameTop}.
    this.divergences = new Map();
  }

  /** The tokens from the first one to this one. */
  get path() {
    const nodes = [];
    for (let node = this; node.parent; node = node.parent) nodes.push(node);
    return nodes.reverse();
  }
}

export class Tree {
  constructor() {
    this.root = new TokenNode(null, { id: -1, text: "" }, "prompt");
    // The last token of the text that is shown.
    this.at = this.root;
    // By name of a model, as far as one of its answers or the file has told.
    this.fingerprints = new Map();
    // Models that have answered since the tree was begun or loaded: their numbers here are those of now.
    this.confirmed = new Set();
  }

  /** The child of a node with this token; a new one where there is none. The reader stands there then. */
  add(parent, token, origin) {
    let child = parent.children.find((other) => other.id === token.id);
    if (!child) {
      child = new TokenNode(parent, token, origin);
      parent.children.push(child);
    }
    this.at = child;
    parent.latest = child;
    return child;
  }

  /** Stand at the end of the branch that goes through a node. */
  walkTo(node) {
    for (let below = node; below.parent; below = below.parent) below.parent.latest = below;
    while (node.latest) node = node.latest;
    this.at = node;
  }

  /** Remove a node with everything below it. */
  remove(node) {
    const isShown = this.at.path.includes(node);
    const parent = node.parent;
    parent.children = parent.children.filter((other) => other !== node);
    if (parent.latest === node) parent.latest = parent.children.at(-1) ?? null;
    if (isShown) this.walkTo(parent);
  }

  /** Note which numbers a model gives; those that another version of it gave are forgotten. */
  know(model, fingerprint) {
    if (this.fingerprints.has(model) && this.fingerprints.get(model) !== fingerprint) {
      for (const node of this.nodes()) {
        node.likelihoods.delete(model);
        for (const pair of [...node.divergences.keys()]) {
          if (pair.split("\n").includes(model)) node.divergences.delete(pair);
        }
      }
    }
    this.fingerprints.set(model, fingerprint);
    this.confirmed.add(model);
  }

  /** Every node but the root, parents first. */
  *nodes() {
    const open = [...this.root.children];
    for (let node = open.shift(); node; node = open.shift()) {
      yield node;
      open.push(...node.children);
    }
  }

  /** The text of the file. */
  toJSON() {
    const nodes = [...this.nodes()];
    const place = new Map(nodes.map((node, i) => [node, i]));
    return {
      format: FORMAT,
      version: VERSION,
      fingerprints: Object.fromEntries(this.fingerprints),
      at: place.get(this.at) ?? null,
      nodes: nodes.map((node) => ({
        parent: place.get(node.parent) ?? null,
        id: node.id,
        text: node.text,
        bytes: node.bytes,
        origin: node.origin,
        likelihoods: Object.fromEntries(node.likelihoods),
      })),
    };
  }

  /** The tree of such a text; an Error says in one line why it is none. */
  static parse(text) {
    let file;
    try {
      file = JSON.parse(text);
    } catch {
      throw new Error("it is not JSON");
    }
    check(isObject(file) && file.format === FORMAT, `"format" must be "${FORMAT}"`);
    check(file.version === VERSION, `"version" must be ${VERSION}, got ${JSON.stringify(file.version)}`);
    check(Array.isArray(file.nodes), `"nodes" must be a list`);
    check(isObject(file.fingerprints), `"fingerprints" must be an object`);
    const tree = new Tree();
    const nodes = [];
    file.nodes.forEach((entry, i) => nodes.push(tree.#addEntry(entry, i, nodes)));
    for (const [model, fingerprint] of Object.entries(file.fingerprints)) {
      check(typeof fingerprint === "string", `"fingerprints" must hold texts`);
      tree.fingerprints.set(model, fingerprint);
    }
    check(file.at === null || isPlace(file.at, nodes), `"at" must be the place of a node, or null`);
    tree.walkTo(tree.root);
    if (file.at !== null) {
      tree.walkTo(nodes[file.at]);
      tree.at = nodes[file.at];
    }
    return tree;
  }

  #addEntry(entry, i, nodes) {
    const where = `nodes[${i}]`;
    check(isObject(entry), `${where} must be an object`);
    const { parent, id, text, bytes, origin, likelihoods } = entry;
    check(parent === null || isPlace(parent, nodes), `${where}.parent must be an earlier node, or null`);
    check(Number.isInteger(id) && id >= 0, `${where}.id must be a whole number`);
    check(typeof text === "string", `${where}.text must be a text`);
    const isByte = (byte) => Number.isInteger(byte) && byte >= 0 && byte < 256;
    check(bytes === null || (Array.isArray(bytes) && bytes.every(isByte)), `${where}.bytes must be bytes, or null`);
    check(ORIGINS.includes(origin), `${where}.origin must be one of ${ORIGINS.join(", ")}`);
    check(isObject(likelihoods), `${where}.likelihoods must be an object`);
    const above = parent === null ? this.root : nodes[parent];
    check(!above.children.some((other) => other.id === id), `${where} is there twice`);
    const node = this.add(above, { id, text, bytes }, origin);
    for (const [model, likelihood] of Object.entries(likelihoods)) {
      check(isLikelihood(likelihood), `${where}.likelihoods must hold logprob and top`);
      node.likelihoods.set(model, likelihood);
    }
    return node;
  }
}

function isPlace(value, nodes) {
  return Number.isInteger(value) && value >= 0 && value < nodes.length;
}

function isLikelihood(value) {
  const isToken = (token) =>
    isObject(token) && Number.isInteger(token.id) && typeof token.text === "string" && Number.isFinite(token.logprob);
  const isNumber = (logprob) => logprob === null || Number.isFinite(logprob);
  return isObject(value) && isNumber(value.logprob) && Array.isArray(value.top) && value.top.every(isToken);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function check(holds, message) {
  if (!holds) throw new Error(message);
}
