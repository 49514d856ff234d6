// What the server does to a tree: it writes on, reads what was written, and compares two models on it.

import * as server from "./server.js";

// As many alternatives as the server tells.
const N_ALTERNATIVES = 20;

/** The name of two models in `TokenNode.divergences`. */
export function pairOf(reference, candidate) {
  return `${reference}\n${candidate}`;
}

/**
 * Write on from tokens, which are read first where this model has not read them.
 *
 * fields  of the request, beside those that this function sets
 * onNews  called after each chunk
 * Returns how many tokens are new, and why the text has ended
 */
export async function write(tree, model, ids, fields, { signal, onNews }) {
  await confirm(tree, model, signal);
  const known = nodesAlong(tree, ids);
  const isRead = known.length === ids.length && known.every((node) => node.likelihoods.has(model));
  const prompt = ids.length ? ids : "";
  let node = isRead ? (known.at(-1) ?? tree.root) : tree.root;
  let n = isRead ? ids.length : 0;
  let reason = null;
  const body = { ...fields, model, prompt, echo: !isRead, logprobs: N_ALTERNATIVES };
  for await (const chunk of server.complete(body, signal)) {
    tree.know(model, chunk.system_fingerprint);
    tree.at = node;
    for (const choice of chunk.choices) {
      for (const { token, likelihood } of tokensOf(choice.logprobs)) {
        node = tree.add(node, token, n < ids.length ? "prompt" : "written");
        n += 1;
        if (node.text !== token.text) throw new Error(`${model} has other tokens than this tree. Start a new one.`);
        node.bytes = token.bytes;
        node.likelihoods.set(model, likelihood);
      }
      reason = choice.finish_reason ?? reason;
    }
    onNews();
  }
  return { n: n - ids.length, reason };
}

/** Let a model read the text that is shown, where it has not. */
export async function read(tree, model, { signal, onNews }) {
  await confirm(tree, model, signal);
  const path = tree.at.path;
  if (path.every((node) => node.likelihoods.has(model))) return;
  const ids = path.map((node) => node.id);
  await write(tree, model, ids, { max_tokens: 0 }, { signal, onNews: () => {} });
  onNews();
}

/** Ask how far two models are apart on the text that is shown. */
export async function compare(tree, reference, candidate, { signal, onNews }) {
  const path = tree.at.path;
  const pair = pairOf(reference, candidate);
  if (path.every((node) => node.divergences.has(pair))) return;
  const answer = await server.divergence([reference, candidate], path.map((node) => node.id), signal);
  answer.models.forEach((model, i) => tree.know(model, answer.system_fingerprints[i]));
  path.forEach((node, i) => node.divergences.set(pair, { kl: answer.kl[i], isSameTop: answer.is_same_top[i] }));
  onNews();
}

/** Put another token in a node's place. What models have said of it is known already. */
export function choose(tree, node, { id, text, bytes }) {
  const known = node.parent.children.find((child) => child.id === id);
  if (known) {
    tree.walkTo(known);
    return { node: known, isNew: false };
  }
  const chosen = tree.add(node.parent, { id, text, bytes }, "chosen");
  for (const [model, { top }] of node.likelihoods) {
    const entry = top.find((token) => token.id === id);
    if (entry) chosen.likelihoods.set(model, { logprob: entry.logprob, top });
  }
  return { node: chosen, isNew: true };
}

/** See whether numbers that a file has brought are still those of the model; if not, the tree forgets them. */
async function confirm(tree, model, signal) {
  if (!tree.fingerprints.has(model) || tree.confirmed.has(model)) return;
  const [first] = tree.root.children;
  const body = { model, prompt: first ? [first.id] : "", echo: true, max_tokens: 0 };
  for await (const chunk of server.complete(body, signal)) tree.know(model, chunk.system_fingerprint);
}

/** The nodes with these tokens from the root on, as far as they are there. */
function nodesAlong(tree, ids) {
  const found = [];
  let node = tree.root;
  for (const id of ids) {
    node = node.children.find((child) => child.id === id);
    if (!node) break;
    found.push(node);
  }
  return found;
}

/** The lists of an answer, token by token. */
function tokensOf(lists) {
  return lists.tokens.map((text, i) => ({
    token: { id: lists.token_ids[i], text, bytes: lists.bytes[i] },
    likelihood: { logprob: lists.token_logprobs[i], top: topOf(lists, i) },
  }));
}

function topOf(lists, i) {
  return (lists.top_ids[i] ?? []).map(([id, logprob], rank) => ({ id, text: lists.top_tokens[i][rank], logprob }));
}
