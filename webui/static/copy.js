// @ts-check
// The copy buttons of the API reference.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement?.querySelector("pre")?.textContent;
    await navigator.clipboard.writeText(text ?? "");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
