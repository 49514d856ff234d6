// The tree as nested lists: a button for each run of tokens between two branchings.

import { textOf } from "./visible.js";

// Characters of a run that its button shows.
const MOST_SHOWN = 60;

/**
 * Fill a place with the runs of a tree.
 *
 * onWalk    called with the last node of a run that the user chooses
 * onRemove  called with the first node of a run that the user removes
 */
export function showBranches(place, tree, { onWalk, onRemove }) {
  const shown = new Set(tree.at.path);
  const listOf = (parent) => {
    const list = document.createElement("ul");
    for (const child of parent.children) {
      const run = runFrom(child);
      const item = document.createElement("li");
      const last = run.at(-1);
      item.append(rowOf(run, shown, { onWalk, onRemove }));
      if (last.children.length) item.append(listOf(last));
      list.append(item);
    }
    return list;
  };
  place.replaceChildren(...(tree.root.children.length ? [listOf(tree.root)] : []));
}

function runFrom(node) {
  const run = [node];
  while (node.children.length === 1) {
    [node] = node.children;
    run.push(node);
  }
  return run;
}

function rowOf(run, shown, { onWalk, onRemove }) {
  const row = document.createElement("div");
  row.className = "run";
  const walk = document.createElement("button");
  walk.type = "button";
  walk.className = "walk";
  const text = textOf(run).replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5");
  const shownText = text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}\u2026` : text;
  const code = document.createElement("code");
  code.textContent = shownText.trim() === "" ? "\u00b7".repeat(shownText.length) : shownText;
  const count = document.createElement("span");
  count.className = "count";
  count.textContent = run.length === 1 ? "1 token" : `${run.length} tokens`;
  walk.append(code, count);
  if (shown.has(run[0])) walk.setAttribute("aria-current", "true");
  walk.addEventListener("click", () => onWalk(run.at(-1)));
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "plain remove";
  remove.textContent = "\u00d7";
  remove.setAttribute("aria-label", `Remove ${shownText}`);
  remove.addEventListener("click", () => onRemove(run[0]));
  row.append(walk, remove);
  return row;
}
