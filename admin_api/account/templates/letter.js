// The token is taken out of the address at once, so that neither history nor a copied address has it.
const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
const form = document.getElementById("form");
const said = document.getElementById("said");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  const body = { token };
  const password = document.getElementById("password");
  if (password) body.new_password = password.value;
  try {
    const answer = await fetch(form.dataset.operation, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const told = await answer.json();
    if (answer.ok) {
      form.hidden = true;
      said.textContent = told.data.message || "Your address is confirmed. You can log in now.";
      if (told.data.access_token) {
        await fetch("/auth/logout", { method: "POST", headers: { Authorization: `Bearer ${told.data.access_token}` } });
      }
    } else {
      said.textContent = told.detail;
      button.disabled = false;
    }
  } catch {
    said.textContent = "There was no answer. Try again.";
    button.disabled = false;
  }
});
