// Definitions of terms: a first tap shows one and a second follows the link; Escape or a tap elsewhere hides it.
document.addEventListener("DOMContentLoaded", () => {
  const links = [...document.querySelectorAll("a.term")];
  const show = (one) => links.forEach((link) => link.classList.toggle("told", link === one));
  links.forEach((link, i) => {
    link.nextElementSibling.id = `tip-${i}`;
    link.setAttribute("aria-describedby", `tip-${i}`);
    let touched = false;
    link.addEventListener("pointerdown", (event) => (touched = event.pointerType === "touch"));
    link.addEventListener("keydown", () => (touched = false));
    link.addEventListener("click", (event) => {
      if (!touched || link.classList.contains("told")) return;
      event.preventDefault();
      show(link);
    });
    const unhush = () => link.classList.remove("hushed"); // what Escape had hidden
    ["mouseenter", "mouseleave", "blur"].forEach((event) => link.addEventListener(event, unhush));
  });
  document.addEventListener("click", (event) => event.target.closest("a.term") || show(null));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    show(null);
    const met = (link) => link.matches(":hover, :focus") || link.nextElementSibling.matches(":hover");
    links.filter(met).forEach((link) => link.classList.add("hushed"));
  });
});
