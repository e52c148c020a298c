"use strict";
// Follows a run or an experiment: when the server says that its records changed, the parts of the page that
// differ are put in place of the old ones. What a reader opened, scrolled or points at stays so.
(() => {
  const PARTS = "header, nav, main > section, footer";
  const keyOf = (part) => part.id || part.localName;
  const partsOf = (page) => new Map([...page.querySelectorAll(PARTS)].map((p) => [keyOf(p), p]));
  const textOf = (page) => new Map([...partsOf(page)].map(([key, p]) => [key, p.outerHTML]));

  const root = document.documentElement;
  let shown = textOf(document); // before page.js adds to it
  let pointer = null;
  let asked = false;
  let isFetching = false;

  addEventListener("pointermove", (event) => {
    pointer = event.pointerType === "mouse" ? event : null;
  }, { passive: true });

  function say(mood, text) {
    const link = document.querySelector(".link");
    link.className = `link ${mood}`;
    if (link.textContent !== text) link.textContent = text;
  }

  // Whoever reads values with the keys, or marks text, is not to lose the place.
  function isInUse(part) {
    const chosen = getSelection();
    const marks = !chosen.isCollapsed && chosen.containsNode(part, true);
    return marks || part.querySelector(".plot:focus-visible") !== null;
  }

  const focusableIn = (part) => [...part.querySelectorAll("a, button, summary, [tabindex]")];

  // What stood open stays open, tables stay where they were scrolled to, and focus where it was.
  function replace(old, fresh) {
    const details = [...old.querySelectorAll("details")];
    fresh.querySelectorAll("details").forEach((one, index) => {
      const was = details[index];
      const head = (element) => element?.querySelector("summary").textContent;
      if (was && head(was) === head(one)) one.open = was.open;
    });
    const lefts = [...old.querySelectorAll(".table")].map((table) => table.scrollLeft);
    const focused = focusableIn(old).indexOf(document.activeElement);
    old.replaceWith(fresh);
    fresh.querySelectorAll(".table").forEach((table, index) => {
      table.scrollLeft = lefts[index] ?? 0;
    });
    focusableIn(fresh)[focused]?.focus({ preventScroll: true });
  }

  function show(page) {
    const texts = textOf(page);
    const here = partsOf(document);
    let waiting = false;
    const main = document.querySelector("main");
    for (const [key, old] of here) {
      if (texts.has(key)) continue;
      old.remove();
      shown.delete(key);
    }
    let next = main.firstElementChild;
    for (const [key, fresh] of partsOf(page)) {
      const old = here.get(key);
      const isOther = texts.get(key) !== shown.get(key);
      const stays = old && (!isOther || isInUse(old));
      if (stays && isOther) waiting = true;
      if (!stays) {
        if (old) replace(old, fresh);
        if (next === old) next = fresh;
        shown.set(key, texts.get(key));
      }
      if (fresh.localName !== "section") continue;
      // Another page may have its sections in another order.
      const placed = stays ? old : fresh;
      if (placed === next) next = next.nextElementSibling;
      else main.insertBefore(placed, next);
    }
    document.title = page.title;
    document.dispatchEvent(new Event("changed"));
    if (pointer) {
      document.elementFromPoint(pointer.clientX, pointer.clientY)?.closest(".plot")
        ?.dispatchEvent(new PointerEvent("pointermove", pointer));
    }
    return !waiting;
  }

  async function renew() {
    asked = true;
    if (isFetching) return;
    isFetching = true;
    try {
      while (asked) {
        asked = false;
        const answer = await fetch(location.pathname, { cache: "no-store" });
        if (!answer.ok) throw new Error(answer.statusText);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!show(page)) setTimeout(renew, 2000);
        say("good", "live");
      }
    } catch {
      say("bad", "the page could not be fetched");
    } finally {
      isFetching = false;
    }
  }

  const stream = new EventSource(new URL("events", location.href));
  let version = null;
  stream.addEventListener("page", (event) => {
    if (event.data !== version) renew();
    version = event.data;
    root.dataset.version = version;
  });
  stream.addEventListener("open", () => say("good", "live"));
  stream.addEventListener("error", () => say("bad", "not connected: rewarm watch has ended"));
})();
