// Filters the pairs. The page is complete without it: the tools stay hidden until this runs.
"use strict";
const tools = document.getElementById("tools");
const pairs = Array.from(document.querySelectorAll("article.pair[data-reason]"), (element) => ({
  element,
  reason: element.dataset.reason,
  text: element.textContent.toLowerCase(),
}));
if (tools && pairs.length) {
  const query = document.getElementById("query");
  const reason = document.getElementById("reason");
  const shown = document.getElementById("shown");
  const filter = () => {
    const needle = query.value.trim().toLowerCase();
    let count = 0;
    for (const pair of pairs) {
      const match = (!reason.value || pair.reason === reason.value) && pair.text.includes(needle);
      pair.element.hidden = !match;
      count += match ? 1 : 0;
    }
    shown.textContent = `${count} of ${pairs.length} shown`;
  };
  query.addEventListener("input", filter);
  reason.addEventListener("change", filter);
  tools.hidden = false;
  filter();
}
