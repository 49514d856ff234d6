// What else could stand in a token's place: the most likely tokens of one model, or of two side by side.

import { nats, percent, showToken } from "./visible.js";

/**
 * Fill a place with the alternatives of a node.
 *
 * models    names of one or two models
 * kl        of the second from the first at this token, or null
 * onChoose  called with the token that the user takes: {id, text, logprob}
 */
export function showAlternatives(place, node, { models, kl, onChoose }) {
  place.replaceChildren();
  place.className = models.length > 1 ? "two" : "";
  const here = line("here", "Here stands ");
  const token = document.createElement("code");
  showToken(token, node, { isAlone: true });
  here.append(token);
  if (kl !== null) here.append(`, divergence ${nats(kl)} nats`);
  place.append(here);
  for (const model of models) {
    const column = document.createElement("div");
    column.className = "column";
    if (models.length > 1) {
      const name = document.createElement("h3");
      name.textContent = model;
      column.append(name);
    }
    column.append(...columnOf(node, model, onChoose));
    place.append(column);
  }
}

function columnOf(node, model, onChoose) {
  const likelihood = node.likelihoods.get(model);
  if (!likelihood) return [line("hint", "This model has not read the token yet.")];
  if (likelihood.logprob === null) {
    return [line("hint", "Nothing stands before the first token, so that it has no probability.")];
  }
  const list = document.createElement("ol");
  const { top, logprob } = likelihood;
  list.append(...top.map((token) => rowOf(token, node, onChoose)));
  const isListed = top.some((token) => token.id === node.id);
  if (!isListed) list.append(rowOf({ id: node.id, text: node.text, bytes: node.bytes, logprob }, node, onChoose));
  const shares = top.reduce((sum, token) => sum + Math.exp(token.logprob), isListed ? 0 : Math.exp(logprob));
  return [list, line("hint", `All others: ${percent(Math.log(Math.max(0, 1 - shares)))}`)];
}

function rowOf(token, node, onChoose) {
  const isHere = token.id === node.id;
  const isBranch = node.parent.children.some((child) => child.id === token.id);
  const row = document.createElement("button");
  row.type = "button";
  row.className = isHere ? "row here" : "row";
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${100 * Math.exp(token.logprob)}%`;
  const name = document.createElement("code");
  showToken(name, token, { isAlone: true });
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(token.logprob);
  row.append(bar, name);
  const note = isHere ? "in the text" : isBranch ? "a branch" : null;
  if (note) row.append(line("note", note, "span"));
  row.append(share);
  row.disabled = isHere;
  row.addEventListener("click", () => onChoose(token));
  const item = document.createElement("li");
  item.append(row);
  return item;
}

function line(kind, text, tag = "p") {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = text;
  return element;
}
