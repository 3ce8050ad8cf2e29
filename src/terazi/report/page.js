"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead button").forEach((button) => {
    const header = button.closest("th");
    button.addEventListener("click", () => {
      const falling = header.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => row.cells[header.cellIndex].dataset.value ?? "";
      const order = (a, b) => {
        const [left, right] = [key(a), key(b)];
        if (left === "" || right === "") return (left === "") - (right === "");
        const numbers = Number(left) - Number(right);
        return (falling ? -1 : 1) * (Number.isNaN(numbers) ? left.localeCompare(right) : numbers);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
