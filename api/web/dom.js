// Builds elements. All text goes through textContent, links only to http(s) or this origin, and nothing is parsed as HTML, so that
// what an alert or an entity says can never become markup; the page's Content-Security-Policy allows no inline style or script.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = { // 16 × 16; severities differ by shape, not by colour only
  info: "M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2ZM8.9 12H7.1V7h1.8ZM8 5.7a1.1 1.1 0 1 1 0-2.2 1.1 1.1 0 0 1 0 2.2Z",
  warning: "M8 1 .6 14.4h14.8ZM7.1 5.8h1.8l-.2 4.4H7.3ZM8 13a1.1 1.1 0 1 1 0-2.2A1.1 1.1 0 0 1 8 13Z",
  error: "M8 .6.6 8 8 15.4 15.4 8ZM7.1 4h1.8l-.2 5H7.3ZM8 12.2a1.1 1.1 0 1 1 0-2.2 1.1 1.1 0 0 1 0 2.2Z",
  critical: "M4.9.8h6.2l4.1 4.1v6.2l-4.1 4.1H4.9L.8 11.1V4.9ZM4.6 4h1.8l-.2 5H4.8ZM9.6 4h1.8l-.2 5H9.8ZM5.5 12.2a1.1 1.1 0 1 1 0-2.2 1.1 1.1 0 0 1 0 2.2ZM10.5 12.2a1.1 1.1 0 1 1 0-2.2 1.1 1.1 0 0 1 0 2.2Z",
  bell: "M8 .9a1 1 0 0 0-1 1v.5A4.3 4.3 0 0 0 3.7 6.6c0 3-.7 3.9-1.5 4.7-.4.4-.1 1.1.5 1.1h10.6c.6 0 .9-.7.5-1.1-.8-.8-1.5-1.7-1.5-4.7A4.3 4.3 0 0 0 9 2.4v-.5a1 1 0 0 0-1-1ZM6.2 13.3a1.8 1.8 0 0 0 3.6 0Z",
  check: "m6.3 12.7-4-4 1.3-1.3 2.7 2.7 6.1-6.2 1.3 1.3Z",
  dot: "M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7Z",
  archive: "M1.5 2h13v3.5h-13Zm1 4.5h11V14h-11ZM6 8v1.5h4V8Z",
  unarchive: "M1.5 2h13v3.5h-13Zm1 4.5h11V14h-11ZM8 7.5 5.2 10.3h2V13h1.6v-2.7h2Z",
  close: "m3.6 2.4 4.4 4.4 4.4-4.4 1.2 1.2L9.2 8l4.4 4.4-1.2 1.2L8 9.2l-4.4 4.4-1.2-1.2L6.8 8 2.4 3.6Z",
};

/** An element: `class`, `text`, `on<event>` and booleans are understood, everything else is an attribute; null children are left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name] ?? ICONS.info);
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  return svg;
}

export const iconButton = (name, label, onclick, extra = {}) =>
  h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...extra }, icon(name));

/** A link's address if it is one to follow (http, https or this origin), else null. */
export function safeLink(text) {
  const url = URL.canParse?.(text, location.href) ? new URL(text, location.href) : null;
  return url && ["http:", "https:"].includes(url.protocol) ? url.href : null;
}

/** Sets text only where it differs, so that a screen reader or a selection isn't disturbed for nothing. */
export function say(element, text) { if (element.textContent !== text) element.textContent = text; }
