// The question for the key of the server. The key leaves the dialog as the answer, and the field is emptied.

const $ = (id) => document.getElementById(id);

/** What the user enters; null where the user does not want to. `isRefused`: a key was entered before, and is wrong. */
export function askForKey(isRefused) {
  const dialog = $("key-dialog");
  $("key-note").textContent = isRefused
    ? "The server refused this key."
    : "It stays in this page until you close or reload it, and is stored nowhere.";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      dialog.close("given");
    };
    const cancel = () => dialog.close("");
    $("key-form").addEventListener("submit", submit);
    $("key-cancel").addEventListener("click", cancel);
    dialog.addEventListener(
      "close",
      () => {
        $("key-form").removeEventListener("submit", submit);
        $("key-cancel").removeEventListener("click", cancel);
        const key = $("key").value.trim();
        $("key").value = "";
        resolve(dialog.returnValue === "given" ? key : null);
      },
      { once: true },
    );
  });
}
