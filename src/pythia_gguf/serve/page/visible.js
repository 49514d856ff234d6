// How tokens and numbers are shown: white space, control characters, half characters, shares in percent, colours.

const PICTURES = new Map([
  ["\n", "\u21b5"],
  ["\r", "\u240d"],
  ["\t", "\u21e5"],
]);
const WHITE_NAMES = { "\n": "line break", "\r": "carriage return", "\t": "tab", " ": "space" };
// What has no picture of its own, or changes the order of what stands around it.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/u;
const DECODER = new TextDecoder("utf-8", { fatal: true });

// Lower ends of the steps of both scales: shares, and nats.
const SHARES = [0.5, 0.2, 0.05, 0.01, 0.001];
const NATS = [0.001, 0.01, 0.05, 0.2, 1];
export const SCALES = {
  probability: { title: "Probability, %, at least", labels: [...SHARES.map((share) => `${100 * share}`), "less"] },
  divergence: { title: "Divergence, nats, at least", labels: ["less", ...NATS.map(String)] },
};

/** The step of the scale, 0 to 5, of a log-probability; null where there is none. */
export function stepOfLogprob(logprob) {
  if (logprob === null || logprob === undefined) return null;
  const share = Math.exp(logprob);
  const step = SHARES.findIndex((least) => share >= least);
  return step < 0 ? SHARES.length : step;
}

/** The step of the scale, 0 to 5, of a divergence in nats; null where there is none. */
export function stepOfDivergence(kl) {
  if (kl === null || kl === undefined) return null;
  return NATS.filter((least) => kl >= least).length;
}

/** A share in percent, with as many digits as it needs. */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  if (share >= 10) return `${share.toFixed(0)} %`;
  if (share >= 0.1) return `${share.toFixed(1)} %`;
  if (share >= 0.001) return `${share.toFixed(3)} %`;
  return "< 0.001 %";
}

/** Nats with three digits after the point, or as a power of ten where that would be 0. */
export function nats(value) {
  return value === 0 || Math.abs(value) >= 0.0005 ? value.toFixed(3) : value.toExponential(1);
}

/** The text of tokens; what is no UTF-8 becomes a replacement character. */
export function textOf(nodes) {
  const encoder = new TextEncoder();
  const bytes = nodes.flatMap((node) => node.bytes ?? [...encoder.encode(node.text)]);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/** The character that a token ends whose first bytes are in the tokens before it; null where it ends none. */
export function endedCharacter(nodes, i) {
  if (!nodes[i].bytes) return null;
  const bytes = [];
  for (let first = i; first >= 0 && nodes[first].bytes && bytes.length < 4; first -= 1) {
    bytes.unshift(...nodes[first].bytes);
    try {
      return DECODER.decode(Uint8Array.from(bytes));
    } catch {
      // Not whole yet: one more token belongs to it, or it is no UTF-8 at all.
    }
  }
  return null;
}

/** Bytes as people write them. */
export function hex(bytes) {
  return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

/**
 * Put a token into an element, as text nodes and marks only.
 *
 * token      {text, bytes}
 * character  that its bytes end, or null
 * isAlone    whether it stands in a list, where a space must be seen too and no line breaks
 */
export function showToken(element, token, { character = null, isAlone = false } = {}) {
  element.replaceChildren();
  const bytes = token.bytes ?? bytesOfText(token.text);
  if (bytes) {
    if (character) showSigns(element, character, isAlone);
    element.append(mark(hex(bytes), "bytes"));
  } else if (token.text === "") {
    element.append(mark("empty", "code"));
  } else {
    showSigns(element, token.text, isAlone);
  }
}

function showSigns(element, text, isAlone) {
  for (const sign of text) {
    const picture = PICTURES.get(sign) ?? (isAlone && sign === " " ? "\u00b7" : null);
    if (picture !== null) element.append(...white(sign, picture, isAlone && (sign !== " " || text.trim() === "")));
    else if (UNSEEN.test(sign)) element.append(mark(codePoint(sign), "code"));
    else element.append(sign);
    if (!isAlone && (sign === "\n" || sign === "\t")) element.append(sign);
  }
  // Letters that were added one by one become one text, which is shaped as a whole.
  element.normalize();
}

/** A token in words, for people who listen: white space by name, the rest as `showToken` has put it into an element. */
export function spoken(token, element) {
  if (token.bytes) return `${element.textContent} bytes`;
  if (token.text in WHITE_NAMES) return WHITE_NAMES[token.text];
  const nameOf = (sign) => {
    if (sign !== " " && sign in WHITE_NAMES) return ` ${WHITE_NAMES[sign]} `;
    return UNSEEN.test(sign) ? codePoint(sign) : sign;
  };
  return [...token.text].map(nameOf).join("");
}

/** A picture of white space; where `isSpoken`, with its name for people who listen. */
function white(sign, picture, isSpoken) {
  const shown = mark(picture, "white");
  shown.setAttribute("aria-hidden", "true");
  if (!isSpoken) return [shown];
  const name = document.createElement("span");
  name.className = "unseen";
  name.textContent = `${WHITE_NAMES[sign]} `;
  return [shown, name];
}

/** Half characters among the alternatives have no bytes beside their text: it is `bytes:\xe2\x80`. */
function bytesOfText(text) {
  if (!/^bytes:(?:\\x[0-9a-f]{2})+$/.test(text)) return null;
  return text.slice(8).split("\\x").map((digits) => parseInt(digits, 16));
}

function codePoint(sign) {
  return `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

function mark(text, kind) {
  const element = document.createElement("span");
  element.className = `mark ${kind}`;
  element.textContent = text;
  return element;
}
