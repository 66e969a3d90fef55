// @ts-check
/** The few things that the page does to its elements. Text is always text, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Find what index.html has under this id.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return found;
}

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(isChild));
  return element;
}

/**
 * Make an SVG element.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...SVGElement} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return /** @type {SVGElement} */ (element);
}

/** One of the page's signs. @param {string} name @returns {SVGElement} */
export function sign(name) {
  return svg("svg", { class: "sign", "aria-hidden": "true" }, svg("use", { href: `#sign-${name}` }));
}

/** Write, where that changes something: selections and screen readers notice each write.
 * @param {Element} element @param {string} content */
export function write(element, content) {
  if (element.textContent !== content) element.textContent = content;
}

/**
 * Write a value, or a dash that says why there is none.
 * @param {Element} element
 * @param {string | null} value
 * @param {string} why
 */
export function writeOr(element, value, why) {
  element.classList.toggle("missing", value === null);
  if (value !== null) {
    element.removeAttribute("title");
    write(element, value);
    return;
  }
  if (element.getAttribute("title") === why) return;
  element.setAttribute("title", why);
  element.replaceChildren(
    make("span", { "aria-hidden": "true" }, "–"), make("span", { class: "unseen" }, why));
}

/** Show or hide. @param {Element} element @param {boolean} isShown */
export function show(element, isShown) {
  element.toggleAttribute("hidden", !isShown);
}

/**
 * Put children in place, unless they would say the same as before.
 * @param {Element} parent
 * @param {unknown} key what the children are made from
 * @param {() => Child[]} build
 */
export function rebuild(parent, key, build) {
  const now = JSON.stringify(key) ?? "";
  if (built.get(parent) === now) return;
  built.set(parent, now);
  parent.replaceChildren(...build().filter(isChild));
}

/** @type {WeakMap<Element, string>} */
const built = new WeakMap();

/** @param {Child} child @returns {child is Node | string} */
function isChild(child) {
  return child !== null && child !== undefined && child !== false && child !== "";
}
