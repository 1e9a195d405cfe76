"use strict";
(() => {
  function key(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.sort !== undefined) return cell.dataset.sort === "" ? -Infinity : Number(cell.dataset.sort);
    const number = Number.parseFloat(cell.textContent);
    return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const text = head.querySelector("span") || head;
      if (!text.textContent.trim()) return; // a column without a name
      const button = document.createElement("button");
      button.className = "sort";
      button.textContent = text.textContent;
      text.replaceChildren(button);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") === "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const x = key(a, column), y = key(b, column);
          const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "string" ? 1 : -1;
          return rising ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  const many = 20;
  for (const table of document.querySelectorAll("table.searched")) {
    const rows = [...table.tBodies[0].rows], label = document.createElement("label"), search = document.createElement("input");
    if (rows.length <= many) continue;
    const count = document.createElement("span");
    search.type = "search";
    count.setAttribute("role", "status");
    label.className = "find";
    label.append("Find ", search, " ", count);
    const all = table.parentElement.previousElementSibling;
    (all?.matches("label.all") ? all : table.parentElement).before(label);
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    });
  }
})();
