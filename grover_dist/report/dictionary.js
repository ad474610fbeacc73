(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("dictionary-data").textContent);
  const body = document.querySelector("#dictionary tbody");
  const input = document.getElementById("word-search");
  const status = document.getElementById("word-status");
  const SHOWN = 300;
  let key = 0, down = false;

  const format = {
    text: (value) => value,
    integer: (value) => value.toLocaleString("en-US"),
    percent: (value) => (100 * value).toFixed(1) + " %",
  };

  function pattern(text) {
    const codes = { R: "[AG]", Y: "[CT]", S: "[CG]", W: "[AT]", K: "[GT]", M: "[AC]", N: "[ACGT]" };
    const query = text.trim().toUpperCase().replace(/[^ACGTRYSWKMN^$]/g, "");
    return query ? new RegExp(query.replace(/[RYSWKMN]/g, (letter) => codes[letter])) : null;
  }

  function draw() {
    const wanted = pattern(input.value);
    const rows = data.rows.filter((row) => !wanted || wanted.test(row[0]));
    if (key > 0 || down) {
      rows.sort((a, b) => {
        const x = a[key], y = b[key];
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
    }
    body.replaceChildren(...rows.slice(0, SHOWN).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, column) => {
        const cell = document.createElement("td");
        cell.className = column ? "n" : "word";
        cell.textContent = value === null ? "–" : format[data.kinds[column]](value);
        line.append(cell);
      });
      return line;
    }));
    status.textContent = rows.length.toLocaleString("en-US") + " of " + data.rows.length.toLocaleString("en-US") + " words" +
      (rows.length > SHOWN ? ", the first " + SHOWN + " shown" : "");
  }

  document.querySelectorAll("#dictionary th[data-key]").forEach((head) => {
    head.addEventListener("click", () => {
      const chosen = Number(head.dataset.key);
      down = key === chosen ? !down : chosen > 0;
      key = chosen;
      draw();
    });
  });
  input.addEventListener("input", draw);
  draw();
})();
