(() => {
  "use strict";
  const root = document.documentElement;
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  root.classList.add("js");

  // ---- colours: as the system has them, or one of the two; a file from a mail may keep nothing
  const themes = { auto: ["◐", "as the system has them"], light: ["○", "light"], dark: ["●", "dark"] };
  const setTheme = (name) => {
    root.dataset.theme = name;
    one("#theme").textContent = `${themes[name][0]} ${name}`;
    one("#theme").setAttribute("aria-label", `Colours: ${themes[name][1]}`);
    try { localStorage.setItem("gpufleet-theme", name); } catch { /* not allowed here */ }
  };
  let kept = null;
  try { kept = localStorage.getItem("gpufleet-theme"); } catch { /* not allowed here */ }
  setTheme(kept in themes ? kept : "auto");
  one("#theme").addEventListener("click", () => {
    const names = Object.keys(themes);
    setTheme(names[(names.indexOf(root.dataset.theme) + 1) % names.length]);
  });
  one("#print").addEventListener("click", () => window.print());

  // ---- commands
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "selected";
      }
    });
  }

  // ---- filter
  const table = one("#nodes");
  const groups = [...table.tBodies];
  const texts = new Map(groups.map((group) => [group, group.rows[0].textContent.toLowerCase()]));
  const find = one("#find");
  let show = "";
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const group of groups) {
      const fits = (!show || group.classList.contains(show)) && words.every((word) => texts.get(group).includes(word));
      group.hidden = !fits;
      count += fits;
    }
    one("#shown").textContent = count === groups.length ? `${count} nodes` : `${count} of ${groups.length} nodes`;
    one("#none").hidden = count > 0;
  };
  find.addEventListener("input", filter);
  for (const chip of all(".chip")) {
    chip.addEventListener("click", () => {
      show = chip.dataset.show;
      for (const other of all(".chip")) other.setAttribute("aria-pressed", String(other === chip));
      filter();
    });
  }

  // ---- sort
  const order = new Intl.Collator("en", { numeric: true });
  const key = (group, place) => {
    const cell = group.rows[0].cells[place];
    return cell.dataset.k ?? cell.firstChild?.textContent ?? "";
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map(groups.map((group) => [group, key(group, place)]));
    groups.sort((a, b) => (down ? -1 : 1) * order.compare(keys.get(a), keys.get(b)));
    table.append(...groups);
  }));

  // ---- details
  const open = (group, wanted) => {
    group.classList.toggle("open", wanted);
    group.querySelector(".name").setAttribute("aria-expanded", String(group.classList.contains("open")));
  };
  for (const group of groups) {
    const link = group.querySelector(".name");
    link.setAttribute("aria-expanded", "false");
    link.setAttribute("role", "button");
  }
  table.addEventListener("click", (event) => {
    const link = event.target.closest(".name");
    if (link) {
      event.preventDefault();
      open(link.closest("tbody"));
    }
  });
  table.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target.classList.contains("name")) {
      event.preventDefault();
      open(event.target.closest("tbody"));
    }
  });
  const follow = () => {
    const group = location.hash && document.getElementById(location.hash.slice(1));
    if (group?.tagName !== "TBODY") return;
    if (group.hidden) { find.value = ""; one(".chip").click(); }
    open(group, true);
    group.scrollIntoView({ block: "center" });
    group.querySelector(".name").focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  // A link to the node that the address names already changes no address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']:not(.name)");
    if (link && link.hash === location.hash) follow();
  });
  follow();

  // ---- keys
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && event.target !== find) {
      event.preventDefault();
      find.focus();
    } else if (event.key === "Escape" && event.target === find) {
      find.value = "";
      filter();
    }
  });
})();
