// The text as tokens that can be chosen: one stop for the tab key, arrows move from token to token.

import { endedCharacter, nats, percent, showToken, spoken, stepOfDivergence, stepOfLogprob } from "./visible.js";

export class TextView {
  /**
   * onChoose  called with a node when its token is chosen, and {isByKeyboard}
   * onPeek    called with a node when the pointer or the focus comes to its token, and with null when it leaves
   */
  constructor(place, { onChoose, onPeek }) {
    this.place = place;
    this.nodes = [];
    this.spans = [];
    this.focused = 0;
    // A click without a pointer comes from a screen reader, which stands for a keyboard.
    place.addEventListener("click", (event) => this.#withNode(event, onChoose, { isByKeyboard: event.detail === 0 }));
    place.addEventListener("pointerover", (event) => this.#withNode(event, onPeek));
    place.addEventListener("pointerleave", () => onPeek(null));
    place.addEventListener("focusin", (event) => {
      const i = this.spans.indexOf(event.target);
      if (i >= 0) this.#rove(i);
      this.#withNode(event, onPeek);
    });
    place.addEventListener("keydown", (event) => this.#key(event, onChoose));
  }

  /**
   * Show tokens.
   *
   * model     whose probabilities are shown
   * pair      of models whose divergence colours the tokens, as `tree.divergences` has it; null: probability does
   * selected  the node that is chosen, or null
   */
  show(nodes, { model, pair, selected }) {
    // 1. Tokens that stay are left alone, so that focus and selection survive a stream.
    let same = 0;
    while (same < nodes.length && this.nodes[same] === nodes[same]) same += 1;
    for (const span of this.spans.splice(same)) span.remove();
    for (let i = same; i < nodes.length; i += 1) this.spans.push(this.#span(nodes, i));
    this.place.append(...this.spans.slice(same));
    this.nodes = nodes;
    this.#rove(Math.min(this.focused, nodes.length - 1));
    // 2. Colours and words may have changed for all of them.
    nodes.forEach((node, i) => {
      const { logprob = null } = node.likelihoods.get(model) ?? {};
      const apart = pair === null ? null : (node.divergences.get(pair)?.kl ?? null);
      const step = pair === null ? stepOfLogprob(logprob) : stepOfDivergence(apart);
      const scale = pair === null ? "p" : "d";
      this.spans[i].className = `token ${node.origin}`;
      if (step !== null) this.spans[i].classList.add(`${scale}${step}`);
      this.spans[i].classList.toggle("selected", node === selected);
      const parts = [spoken(node, this.spans[i]), logprob === null ? null : percent(logprob)];
      if (apart !== null) parts.push(`divergence ${nats(apart)}`);
      this.spans[i].setAttribute("aria-label", parts.filter((part) => part !== null).join(", "));
      if (node === selected) this.spans[i].setAttribute("aria-current", "true");
      else this.spans[i].removeAttribute("aria-current");
    });
  }

  /** Put the focus on a node's token. */
  focus(node) {
    const i = this.nodes.indexOf(node);
    if (i < 0) return;
    this.#rove(i);
    this.spans[i].focus();
  }

  /** Scroll to a node's token where it is out of sight. */
  reveal(node) {
    this.spans[this.nodes.indexOf(node)]?.scrollIntoView({ block: "nearest" });
  }

  #span(nodes, i) {
    const span = document.createElement("span");
    span.setAttribute("role", "button");
    span.tabIndex = -1;
    showToken(span, nodes[i], { character: endedCharacter(nodes, i) });
    return span;
  }

  /** The one token that the tab key comes to. */
  #rove(i) {
    if (this.spans[this.focused]) this.spans[this.focused].tabIndex = -1;
    this.focused = Math.max(0, i);
    if (this.spans[this.focused]) this.spans[this.focused].tabIndex = 0;
  }

  #withNode(event, call, how) {
    const i = this.spans.indexOf(event.target.closest("[role=button]"));
    if (i >= 0) call(this.nodes[i], how);
  }

  #key(event, onChoose) {
    const moves = { ArrowLeft: this.focused - 1, ArrowRight: this.focused + 1, Home: 0, End: this.spans.length - 1 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      this.spans[Math.min(Math.max(moves[event.key], 0), this.spans.length - 1)]?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      this.#withNode(event, onChoose, { isByKeyboard: true });
    } else {
      return;
    }
    event.preventDefault();
  }
}
