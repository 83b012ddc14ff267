"""The script of a study's page; without it everything is there to read, in the order given."""

SCRIPT = """
"use strict";

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rank = (row) => row.cells[column].dataset.rank ?? (falling ? -1 : Infinity);
      body.append(...[...body.rows].sort((a, b) => {
        const [left, right] = [Number(rank(a)), Number(rank(b))];
        return left === right ? 0 : left < right === falling ? 1 : -1;
      }));
    });
  });
}

function explorable(figure) {
  const svg = figure.querySelector("svg.chart");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-live", "polite");
  tip.hidden = true;
  svg.parentNode.append(tip);
  const groups = [...svg.querySelectorAll(".series")];
  const points = [...svg.querySelectorAll(".point")].map((node) => {
    const title = node.querySelector("title"), { e: x, f: y } = node.transform.baseVal[0].matrix;
    title.remove();
    const link = node.closest("a");
    if (link) link.tabIndex = -1;
    return { node, x, y, link, lines: title.textContent.split("\\n"), group: node.closest(".series") };
  });
  let current = null, fresh = false;

  const pick = (group) => {
    for (const each of groups) each.classList.toggle("on", each === group);
    svg.classList.toggle("picked", Boolean(group));
  };
  const show = (point) => {
    if (point === current) return;
    current?.node.classList.remove("on");
    current = point;
    pick(point?.group);
    tip.hidden = !point;
    svg.style.cursor = point?.link ? "pointer" : "";
    if (!point) return;
    point.node.classList.add("on");
    tip.replaceChildren(...point.lines.map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    tip.style.left = 0;
    const scale = svg.clientWidth / svg.viewBox.baseVal.width, x = point.x * scale, y = point.y * scale;
    const width = tip.offsetWidth, right = x + 14 + width <= svg.clientWidth;
    tip.style.left = `${Math.max(0, right ? x + 14 : x - 14 - width)}px`;
    tip.style.top = `${y - 14 - tip.offsetHeight}px`;
  };
  const shown = () => points.filter((point) => !point.group.classList.contains("off"));
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = null, least = 40;
    for (const point of shown()) {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  };
  const step = (along, across) => {
    const all = shown(), own = all.filter((point) => point.group === current.group);
    if (along) return show(own[own.indexOf(current) + along] ?? current);
    const others = groups.filter((group) => all.some((point) => point.group === group));
    const next = others[others.indexOf(current.group) + across];
    const far = (point) => Math.hypot(point.x - current.x, point.y - current.y);
    const there = all.filter((point) => point.group === next).sort((a, b) => far(a) - far(b));
    show(there[0] ?? current);
  };
  const open = () => current?.link && location.assign(current.link.href.baseVal);

  svg.tabIndex = 0;
  svg.addEventListener("pointermove", (event) => event.pointerType === "mouse" && show(nearest(event)));
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(null));
  svg.addEventListener("pointerdown", (event) => {
    const found = nearest(event);
    fresh = event.pointerType !== "mouse" && found !== current;
    show(found);
  });
  svg.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || !event.target.closest("a")) return;
    event.preventDefault();
    if (!fresh) open();
  });
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(current ?? shown()[0] ?? null));
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move && current) step(...("turned" in svg.dataset ? move.reverse() : move));
    else if (event.key === "Enter") open();
    else if (event.key === "Escape") show(null);
    else return;
    event.preventDefault();
  });
  for (const entry of figure.querySelectorAll(".legend [data-series]")) {
    const group = groups[entry.dataset.series], button = document.createElement("button");
    button.type = "button";
    button.append(...entry.childNodes);
    entry.append(button);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const off = group.classList.toggle("off");
      button.setAttribute("aria-pressed", String(!off));
      pick(off ? null : group);
    });
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => pick(group));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => pick(null));
  }
}

function copyable(button) {
  const code = button.parentNode.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  });
}

document.querySelectorAll("table.sorts").forEach(sortable);
document.querySelectorAll("figure.explored").forEach(explorable);
document.querySelectorAll("button.copy").forEach(copyable);
"""
