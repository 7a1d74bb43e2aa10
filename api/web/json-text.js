// JSON as text. What an alert config holds is kept byte for byte (1.0 stays 1.0, large numbers keep their digits), which
// JSON.parse and stringify would not do: this reads the members of an object as the pieces of text they are.

function endOfString(text, i) {
  for (i += 1; text[i] !== '"'; i += 1) if (text[i] === "\\") i += 1;
  return i + 1;
}
function endOfValue(text, i) {
  if (text[i] === '"') return endOfString(text, i);
  if (!"{[".includes(text[i])) { while (i < text.length && !",}] \t\r\n".includes(text[i])) i += 1; return i; }
  for (let depth = 0; ;) {
    if (text[i] === '"') { i = endOfString(text, i); continue; }
    if ("{[".includes(text[i])) depth += 1;
    if ("}]".includes(text[i])) depth -= 1;
    i += 1;
    if (!depth) return i;
  }
}

/** [[name, raw text of the value], …] of a JSON object. Throws SyntaxError for what is no JSON, TypeError for what is no object. */
export function members(text) {
  const whole = JSON.parse(text);
  if (whole === null || typeof whole !== "object" || Array.isArray(whole)) throw new TypeError("An object { … } is needed here.");
  const found = [];
  const skip = (i) => { while (" \t\r\n,:".includes(text[i])) i += 1; return i; };
  for (let i = skip(text.indexOf("{") + 1); text[i] !== "}"; i = skip(i)) {
    const name = endOfString(text, i), value = skip(name), end = endOfValue(text, value);
    found.push([JSON.parse(text.slice(i, name)), text.slice(value, end)]);
    i = end;
  }
  return found;
}

/** The object text of such members; the values stay as they are. */
export const object = (list) => `{${list.map(([name, raw]) => `${JSON.stringify(name)}:${raw}`).join(",")}}`;
