(function () {
  "use strict";
  const book = window.GROVER_BOOK, rules = window.GROVER_RULES;
  const NOTHING = "\u2013", ROW = 28;
  const at = Object.fromEntries(book.columns.map((name, place) => [name, place]));
  const words = book.words;
  const placeOf = new Map(words.map((row, place) => [row[at.word], place]));
  const $ = (id) => document.getElementById(id);

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  const count = (value) => (value === null ? NOTHING : Math.round(value).toLocaleString("en-US"));
  const percent = (value, places = 1) => (value === null ? NOTHING : (100 * value).toFixed(places) + " %");
  const decimal = (value, places = 2) => (value === null ? NOTHING : value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }));
  const small = (value) => (value === null ? NOTHING : value === 0 ? "< 1e-300" : value < 0.001 ? value.toExponential(1) : value.toFixed(3));
  const fold = (value) => (value === null ? NOTHING : (value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2)) + " \u00d7");
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value);
  const bases = (n) => (n >= 1e6 ? (n / 1e6).toFixed(n >= 1e7 ? 0 : 1) + " Mb" : n >= 1e3 ? Math.round(n / 1e3) + " kb" : n + " b");

  function dna(text, most) {
    const node = make("span", { class: "dna" });
    const shown = most && text.length > most ? text.slice(0, most) + "\u2026" : text;
    let run = "", kind = "";
    const flush = () => { if (run) node.append(make("span", { class: kind }, run)); };
    for (const letter of shown) {
      if (letter !== kind) { flush(); run = ""; kind = letter; }
      run += letter;
    }
    flush();
    return node;
  }

  const link = (place, most = 26) => {
    const text = words[place][at.word];
    return make("a", { href: "#/word/" + text, title: text.length > most ? text.length + " bases" : "" }, dna(text, most));
  };
  const phrase = (places) => make("span", { class: "phrase" }, ...places.map((place) => link(place, 20)));

  function pattern(text) {
    const codes = { R: "[AG]", Y: "[CT]", S: "[CG]", W: "[AT]", K: "[GT]", M: "[AC]", B: "[CGT]", D: "[AGT]", H: "[ACT]", V: "[ACG]", N: "[ACGT]" };
    const query = text.trim().toUpperCase().replace(/[^ACGTRYSWKMBDHVN^$]/g, "");
    return query ? new RegExp(query.replace(/[RYSWKMBDHVN]/g, (letter) => codes[letter])) : null;
  }

  function table(columns, rows, options = {}) {
    const head = make("tr", {}, ...columns.map((column) => make("th", { class: column.number ? "n" : "" }, column.title)));
    const body = rows.map((row) => make("tr", { class: options.weak && options.weak(row) ? "weak" : "" },
      ...columns.map((column) => make("td", { class: column.number ? "n" : "" }, column.show(row)))));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  }

  function bar(text, share) {
    const node = make("span", {}, text);
    const width = Math.max(0, Math.min(1, share));
    node.append(make("span", { class: "bar", style: "width:" + (3.2 * width).toFixed(2) + "rem" }));
    return node;
  }

  // The list: only the rows in view are in the document.
  const HEADS = [["word", "word"], ["count", "count"], ["length", "bases"], ["accuracy", "accuracy"], ["ambiguity", "ambiguity"]];
  const state = { key: "count", down: true, shown: [], here: -1 };

  function heads() {
    $("head").replaceChildren(...HEADS.map(([key, title]) => make("button", {
      type: "button", "aria-label": "Sort by " + title,
      onclick: () => { state.down = state.key === key ? !state.down : key !== "word"; state.key = key; list(); },
    }, title + (state.key === key ? (state.down ? " \u25be" : " \u25b4") : ""))));
  }

  function list() {
    const wanted = pattern($("search").value), column = at[state.key], sign = state.down ? -1 : 1;
    const shown = [];
    words.forEach((row, place) => { if (!wanted || wanted.test(row[at.word])) shown.push(place); });
    shown.sort((a, b) => {
      const x = words[a][column], y = words[b][column];
      if (x === null || y === null) return (x === null) - (y === null);
      return x < y ? -sign : x > y ? sign : a - b;
    });
    state.shown = shown;
    $("spacer").style.height = shown.length * ROW + "px";
    $("status").textContent = shown.length.toLocaleString("en-US") + " of " + words.length.toLocaleString("en-US") + " words" +
      (shown.length ? "" : "; letters A C G T, IUPAC codes, ^ and $ for the ends");
    $("rows").scrollTop = 0;
    heads();
    draw();
  }

  function draw() {
    const box = $("rows"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 4);
    const last = Math.min(state.shown.length, first + Math.ceil(box.clientHeight / ROW) + 8);
    const nodes = [];
    for (let line = first; line < last; line++) {
      const place = state.shown[line], row = words[place];
      nodes.push(make("div", {
        class: "row" + (place === state.here ? " here" : ""), style: "top:" + line * ROW + "px", role: "option",
        "aria-selected": String(place === state.here), onclick: () => { location.hash = "#/word/" + row[at.word]; },
      }, dna(row[at.word], 26), make("span", {}, count(row[at.count])), make("span", {}, String(row[at.length])),
      make("span", {}, percent(row[at.accuracy])), make("span", {}, decimal(row[at.ambiguity]))));
    }
    box.querySelectorAll(".row").forEach((node) => node.remove());
    box.append(...nodes);
  }

  function reveal(place) {
    const line = state.shown.indexOf(place), box = $("rows");
    if (line >= 0 && (line * ROW < box.scrollTop || (line + 1) * ROW > box.scrollTop + box.clientHeight)) {
      box.scrollTop = Math.max(0, line * ROW - box.clientHeight / 3);
    }
    draw();
  }

  // A word's page. Its details lie in a file of a hundred words, which is loaded when the first of them is opened.
  const loaded = new Map(), waiting = new Map();
  window.groverWords = (number, entries) => {
    loaded.set(number, entries);
    (waiting.get(number) || []).forEach((done) => done());
    waiting.delete(number);
  };
  function details(place, done) {
    const number = Math.floor(place / book.shard), give = () => done(loaded.get(number)[place % book.shard]);
    if (loaded.has(number)) return give();
    if (!waiting.has(number)) {
      waiting.set(number, []);
      const file = "data/words-" + String(number).padStart(3, "0") + ".js";
      document.head.append(make("script", { src: file, onerror: () => $("card").append(make("p", {}, "The file " + file + " is missing.")) }));
    }
    waiting.get(number).push(give);
  }

  function show(place) {
    state.here = place;
    reveal(place);
    details(place, (entry) => { if (state.here === place) card(place, entry); });
  }

  function card(place, entry) {
    const row = words[place], text = row[at.word], other = book.complement[place];
    const turned = text.split("").reverse().map((letter) => ({ A: "T", C: "G", G: "C", T: "A" })[letter]).join("");
    const facts = [
      [count(row[at.count]), "occurrences, " + percent(row[at.count] / book.tokens, 3) + " of all tokens"],
      [String(row[at.length]), row[at.length] === 1 ? "base" : "bases"],
      [percent(row[at.gc], 0), "G + C"],
      [row[at.accuracy] === null ? NOTHING : percent(row[at.accuracy]),
        row[at.tests] ? "predicted first where masked (" + count(row[at.tests]) + " tests; first five " + percent(row[at.top5]) + ")" : "never masked in the sample"],
      [decimal(row[at.perplexity], 0), "perplexity where masked"],
      [decimal(row[at.ambiguity]), "ambiguity: 1 \u2212 self-similarity in the last layer"],
    ];
    if (book.softMasked) facts.push([percent(row[at.repeats]), "of its bases are soft-masked"]);
    const strand = make("p", { class: "soft" }, "Reverse complement ");
    if (other === place) strand.append("is the word itself: it reads the same on both strands.");
    else if (other >= 0) strand.append(link(other), " is a word too, with " + count(words[other][at.count]) + " occurrences.");
    else strand.append(dna(turned, 60), " is not a word: the vocabulary was learned on one strand.");
    const node = $("card");
    node.replaceChildren(
      make("p", { class: "title" }, dna(text)), strand,
      make("ul", { class: "facts" }, ...facts.map(([value, label]) => make("li", {}, make("b", {}, value), make("span", {}, label)))),
      make("section", { class: "wide" }, make("h3", {}, "Where it occurs"), tracks(entry.b)),
      make("div", { class: "grid" }, ...sections(place, entry)));
    node.scrollTop = 0;
  }

  function sections(place, entry) {
    const found = [];
    const add = (title, note, node) => found.push(make("section", {}, make("h3", {}, title), node || make("p", { class: "soft" }, note)));
    const largest = (lines) => Math.max(...lines.map((line) => line[1]), 1e-9);
    const ranked = (title, note, lines, value, write, last) => {
      const top = lines.length ? largest(lines) : 1;
      const columns = [{ title: "word", show: (line) => link(line[0]) }, { title: value, number: false, show: (line) => bar(write(line[1]), line[1] / top) }];
      if (last) columns.push({ title: last, number: true, show: (line) => count(line[2]) });
      add(title, note, lines.length ? table(columns, lines) : null);
    };
    const bits = (value) => decimal(value, 1);
    ranked("Stands on its left", "No neighbour is frequent enough.", entry.l, "PMI (bits)", bits, "count");
    ranked("Stands on its right", "No neighbour is frequent enough.", entry.r, "PMI (bits)", bits, "count");
    ranked("Near it by embedding", "Too rare in the sampled windows.", entry.n, "cosine", (value) => decimal(value));
    ranked("Expected in its place", "Never masked in the sample.", entry.s, "probability", (value) => percent(value), "first guess");
    add("Phrases with it", "No phrase with this word beats both nulls.", entry.p.length ? table([
      { title: "phrase", show: (line) => phrase(line[0]) }, { title: "count", number: true, show: (line) => count(line[1]) },
      { title: "over chance", number: true, show: (line) => fold(line[2]) }], entry.p) : null);
    add("Repeats and annotations", "The run has no soft mask and no annotation tracks.", entry.e.length ? table([
      { title: "class", show: (line) => line[0] + (line[1] ? ": " + line[1] : "") }, { title: "of its bases", number: true, show: (line) => percent(line[2]) },
      { title: "over chance", number: true, show: (line) => fold(line[3]) }, { title: "q", number: true, show: (line) => small(line[4]) },
    ], entry.e, { weak: (line) => line[4] >= 0.05 }) : null);
    const placed = rules.positions.flatMap((anchor) => anchor.rules.filter((line) => line[0] === place).map((line) => [anchor.name, ...line]));
    if (placed.length) {
      add("Fixed places", "", table([{ title: "anchor", show: (line) => line[0] }, { title: "begins at", number: true, show: (line) => signed(line[2]) },
        { title: "over controls", number: true, show: (line) => fold(line[5]) }, { title: "q", number: true, show: (line) => small(line[6]) }], placed));
    }
    return found;
  }

  const NS = "http://www.w3.org/2000/svg";
  function svg(tag, attributes, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function tracks(counts) {
    const longest = Math.max(...book.records.map((record) => record.length));
    const dense = book.records.length > 30, height = book.records.length === 1 ? 60 : dense ? 13 : 18, left = 74, width = 900, right = 60;
    const most = Math.max(1, ...counts);
    const root = svg("svg", { viewBox: "0 0 " + width + " " + (book.records.length * height + 20), role: "img",
      "aria-label": "Occurrences along the genome, at most " + most + " in a bin" });
    book.records.forEach((record, line) => {
      const y = (line + 1) * height, scale = (width - left - right) / longest;
      root.append(svg("text", { x: left - 8, y: y - 2, "text-anchor": "end" }, record.name.length > 11 ? record.name.slice(0, 10) + "\u2026" : record.name));
      root.append(svg("line", { x1: left, x2: left + record.length * scale, y1: y + 0.5, y2: y + 0.5, stroke: "var(--line)" }));
      let path = "", total = 0;
      for (let place = 0; place < record.bins; place++) {
        const value = counts[record.first + place];
        total += value;
        if (!value) continue;
        const x = left + place * record.bin * scale, wide = Math.max(0.8, Math.min(record.bin, record.length - place * record.bin) * scale - 0.2);
        const tall = Math.max(1, (height - 4) * value / most);
        path += "M" + x.toFixed(1) + " " + y + "v" + (-tall).toFixed(1) + "h" + wide.toFixed(1) + "v" + tall.toFixed(1) + "z";
      }
      if (path) root.append(svg("path", { d: path, fill: "var(--accent)" }));
      root.append(svg("text", { x: left + record.length * scale + 6, y: y - 2 }, count(total)));
    });
    const y = book.records.length * height + 14;
    root.append(svg("text", { x: left, y }, "bins of " + bases(book.records[0].bin) + "; the tallest bar is " + count(most) + (most === 1 ? " occurrence" : " occurrences") +
      "; on the right the record's total"));
    return root;
  }

  // Rules.
  function ruleTable(rows, columns, search, what) {
    const box = make("div", {}), input = make("input", { type: "search", placeholder: "Only rules with a word like ...", "aria-label": "Filter the rules" });
    const status = make("span", { class: "soft" });
    const refresh = () => {
      const wanted = pattern(input.value);
      const kept = rows.filter((row) => !wanted || search(row).some((place) => wanted.test(words[place][at.word])));
      status.textContent = count(kept.length) + " " + what + (kept.length > 200 ? ", the first 200 shown" : "");
      box.replaceChildren(table(columns, kept.slice(0, 200)));
    };
    input.addEventListener("input", refresh);
    refresh();
    return [make("div", { class: "tools" }, input, status), box];
  }

  const phraseColumns = [
    { title: "words", show: (row) => phrase(row[0]) },
    { title: "count", number: true, show: (row) => count(row[1]) },
    { title: "expected", number: true, show: (row) => decimal(row[2], row[2] < 10 ? 1 : 0) },
    { title: "shuffled genome", number: true, show: (row) => count(row[3]) },
    { title: "over chance", number: true, show: (row) => fold(row[4]) },
    { title: "bits saved", number: true, show: (row) => count(row[5]) },
    { title: "q", number: true, show: (row) => small(row[6]) },
  ];

  function phrasePage(title, text, wanted) {
    const rows = rules.phrases.filter((row) => wanted(row[0].length)).sort((a, b) => b[5] - a[5]);
    const totals = Object.entries(rules.totals).filter(([n]) => wanted(Number(n)))
      .map(([n, [beyond, tested]]) => count(beyond) + " of " + count(tested) + " tested " + (n === "2" ? "pairs" : "phrases of " + n + " words") + " beat both nulls").join("; ");
    return [make("h2", {}, title), make("p", {}, text), make("p", { class: "soft" }, totals + ". The strongest of each length are listed; all are in phrases.arrow."),
      ...(rows.length ? ruleTable(rows, phraseColumns, (row) => row[0], "rules") : [make("p", {}, "None was found.")])];
  }

  function curve(profiles, key, title) {
    const width = 900, height = 230, left = 92, bottom = 36, top = 12;
    const xs = profiles[0].distance, all = profiles.flatMap((profile) => profile[key]).filter((value) => value !== null);
    const high = Math.max(...all, 1e-9) * 1.08, low = Math.min(0, ...all) * 1.08;
    const x = (value) => left + (value - xs[0]) / (xs[xs.length - 1] - xs[0]) * (width - left - 20);
    const y = (value) => top + (high - value) / (high - low) * (height - top - bottom);
    const root = svg("svg", { viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": title });
    const step = Math.pow(10, Math.floor(Math.log10(high - low))), ticks = (high - low) / step < 3 ? step / 2 : step;
    for (let value = Math.ceil(low / ticks) * ticks; value <= high; value += ticks) {
      root.append(svg("line", { x1: left, x2: width - 20, y1: y(value), y2: y(value), stroke: "var(--line)" }));
      root.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(2)).toString()));
    }
    xs.forEach((value) => root.append(svg("text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, signed(value))));
    root.append(svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, "place of the hidden word, in words from the masked one"));
    root.append(svg("text", { x: 12, y: (height - bottom) / 2, "text-anchor": "middle", transform: "rotate(-90 12 " + (height - bottom) / 2 + ")" }, title));
    profiles.forEach((profile) => {
      const twin = profile.model !== "trained";
      [(value) => value < 0, (value) => value > 0].forEach((side) => {
        const points = xs.map((value, place) => [value, profile[key][place]]).filter(([value, found]) => side(value) && found !== null);
        root.append(svg("path", { d: points.map(([a, b], place) => (place ? "L" : "M") + x(a).toFixed(1) + " " + y(b).toFixed(1)).join(""), fill: "none",
          stroke: twin ? "var(--grey)" : "var(--accent)", "stroke-width": 2, "stroke-dasharray": twin ? "5 4" : "none" }));
        points.forEach(([a, b]) => root.append(twin
          ? svg("rect", { x: x(a) - 3, y: y(b) - 3, width: 6, height: 6, fill: "var(--grey)" })
          : svg("circle", { cx: x(a), cy: y(b), r: 3.6, fill: "var(--accent)" })));
      });
    });
    return root;
  }

  const chapters = {
    pairs: () => phrasePage("Collocations", "Pairs of words that stand side by side more often than their own frequencies allow, and more often than in a genome whose " +
      "bases were shuffled with every dinucleotide kept (tokenization itself ties neighbours, and does so there too). \u201cOver chance\u201d is the ratio to the stronger of both nulls; " +
      "\u201cbits saved\u201d is the count times log2 of it: what knowing the pair is worth over the whole genome.", (n) => n === 2),
    phrases: () => phrasePage("Phrases", "Runs of three words or more that beat a Markov chain of their parts, and the shuffled genome.", (n) => n > 2),
    distance: () => {
      const found = [make("h2", {}, "Words that predict each other at a distance"), make("p", {}, "A word is masked and predicted; then one more word, some places away, is hidden too. " +
        "What the prediction of the true word loses, in nats, is the influence of the hidden one.")];
      if (!rules.profiles || !rules.profiles.length) return [...found, make("p", {}, "It was not measured in this run.")];
      found.push(make("p", { class: "legend soft" }, make("span", {}, make("i", {}), "trained model"), make("span", {}, make("i", { class: "twin" }), "untrained twin")),
        curve(rules.profiles, "nats", "influence (nats)"), make("p", { class: "soft" }, "Attention paid to that place, mean over heads and layers. It follows influence with rho " +
        decimal(rules.agreement[0]) + ", and with " + decimal(rules.agreement[1]) + " among places at equal distance."), curve(rules.profiles, "attention", "attention (share)"));
      const [beyond, tested] = rules.totals.influence;
      found.push(make("h2", {}, "Pairs"), make("p", { class: "soft" }, count(beyond) + " of " + count(tested) + " pairs that were seen five times or more have an influence above 0 (q < 0.05). All are in influence.arrow; " +
        "grammar.influence_targets says how many words are masked."));
      return [...found, ...(rules.influence.length ? ruleTable(rules.influence, [
        { title: "context word", show: (row) => link(row[0]) }, { title: "at", number: true, show: (row) => signed(row[1]) },
        { title: "predicts", show: (row) => link(row[2]) }, { title: "times seen", number: true, show: (row) => count(row[3]) },
        { title: "influence (nats)", number: true, show: (row) => decimal(row[4]) }, { title: "q", number: true, show: (row) => small(row[5]) },
      ], (row) => [row[0], row[2]], "pairs") : [])];
    },
    positions: () => {
      const found = [make("h2", {}, "Words at fixed places"), make("p", {}, "Words that begin at a fixed distance from annotated points more often than around shifted points nearby, and more " +
        "often than at the other places around the same points. Places count bases along the point's strand.")];
      rules.positions.forEach((anchor) => {
        found.push(make("h2", {}, anchor.name), make("p", { class: "soft" }, count(anchor.anchors) + " points; " + count(anchor.rules.length) + " of " + count(anchor.tested) +
          " words at a place are rules (q < 0.05). All are in positions.arrow."));
        if (anchor.rules.length) {
          found.push(...ruleTable(anchor.rules, [{ title: "word", show: (row) => link(row[0]) }, { title: "begins at", number: true, show: (row) => signed(row[1]) },
            { title: "points with it", number: true, show: (row) => count(row[2]) }, { title: "shifted points", number: true, show: (row) => count(row[3]) },
            { title: "over controls", number: true, show: (row) => fold(row[4]) }, { title: "q", number: true, show: (row) => small(row[5]) }], (row) => [row[0]], "rules"));
        }
      });
      rules.untested.forEach((text) => found.push(make("p", { class: "soft" }, text + ".")));
      if (found.length === 2) found.push(make("p", {}, "No points were given: set grammar.anchors."));
      return found;
    },
    about: () => [make("h2", {}, "About this book"), make("p", {}, "The vocabulary of run " + book.name + " at " + count(book.cycles) + " cycles over " + count(book.bases) + " bases (" +
      count(book.tokens) + " tokens), and what the model trained on it makes of its words."), make("h2", {}, "Findings"), make("ul", {}, ...book.findings.map((text) => make("li", {}, text + "."))),
      make("h2", {}, "Words used here"), make("ul", {},
        make("li", {}, "PMI: pointwise mutual information, log2 of how much more often two words stand side by side than their frequencies say."),
        make("li", {}, "Ambiguity: 1 minus the mean cosine between the vectors of two occurrences in the last layer, corrected for what all words share. High: the context decides."),
        make("li", {}, "Accuracy: how often the word comes first where it is masked in held-out windows."),
        make("li", {}, "q: expected share of false findings among all that are as good or better (Benjamini and Hochberg).")),
      make("p", { class: "soft" }, "The same data as Arrow tables lie beside this page: words, tracks, bins, neighbours, similar, phrases, influence, positions.")],
  };

  function route() {
    const [, view, word] = location.hash.match(/^#\/(\w+)(?:\/(\w+))?/) || [null, "words", null];
    const isWord = view === "word" || view === "words" || !chapters[view];
    $("words").hidden = !isWord;
    $("rules").hidden = isWord;
    document.querySelectorAll("nav a").forEach((node) => node.classList.toggle("here", node.dataset.view === (isWord ? "words" : view)));
    if (!isWord) {
      $("rules").replaceChildren(...chapters[view]());
      $("rules").scrollTop = 0;
      return;
    }
    if (word && placeOf.has(word)) show(placeOf.get(word));
    else if (word) { draw(); $("card").replaceChildren(make("p", {}, "\u201c" + word + "\u201d is not a word of this vocabulary.")); }
    else if (state.here < 0 && state.shown.length) show(state.shown[0]);
    else draw();
  }

  $("search").addEventListener("input", list);
  $("rows").addEventListener("scroll", draw);
  window.addEventListener("resize", draw);
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", (event) => {
    const typing = document.activeElement && document.activeElement.tagName === "INPUT";
    if (event.key === "/" && !typing) { event.preventDefault(); $("search").focus(); return; }
    if ($("words").hidden || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    const line = state.shown.indexOf(state.here) + (event.key === "ArrowDown" ? 1 : -1);
    if (line >= 0 && line < state.shown.length) { event.preventDefault(); location.hash = "#/word/" + words[state.shown[line]][at.word]; }
  });
  list();
  route();
})();
