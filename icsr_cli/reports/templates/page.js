// Tables are sorted by a click on a column; the field of a page with pictures shows those that fit a word.
"use strict";
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  // A number may have a deviation or a count behind it: 80.1 ± 0.3, 34 (5).
  const number = text.replaceAll(",", "").match(/^(-?\d*\.?\d+(?:e-?\d+)?)%?(?: [±(].*)?$/);
  return number ? Number(number[1]) : text;
};
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "sort";
    const sort = () => {
      const up = head.ariaSort === "descending";
      table.querySelectorAll("th").forEach((other) => { other.ariaSort = null; });
      head.ariaSort = up ? "ascending" : "descending";
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [value(one, column), value(two, column)];
        const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? 1 : -1;
        return up ? order : -order;
      });
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
}
const field = document.querySelector("#filter");
if (field) {
  field.parentElement.hidden = false;
  const galleries = [...document.querySelectorAll(".gallery")];
  const nothing = document.createElement("p");
  nothing.className = "none";
  nothing.textContent = "No picture fits.";
  nothing.hidden = true;
  galleries[0]?.before(nothing);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const gallery of galleries) {
      let any = false;
      for (const group of gallery.querySelectorAll(".groups > div")) {
        let some = false;
        for (const image of group.querySelectorAll(".image")) {
          const said = [gallery.querySelector("h3"), group.querySelector("h4"), image];
          const text = [...said.map((part) => part.textContent), image.dataset.state, image.querySelector("[title]")?.title ?? ""];
          const fits = words.every((word) => text.join(" ").toLowerCase().includes(word));
          image.hidden = !fits;
          some ||= fits;
        }
        group.hidden = !some;
        any ||= some;
      }
      gallery.hidden = !any;
    }
    nothing.hidden = galleries.some((gallery) => !gallery.hidden);
  });
}
