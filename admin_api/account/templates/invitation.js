// The token is taken out of the address at once, so that neither history nor a copied address has it.
const invitation = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
const find = (id) => document.getElementById(id);
const [login, answer, said] = ["login", "answer", "said"].map(find);
let access = null;

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (access) headers.Authorization = `Bearer ${access}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await response.text();
  const told = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Error(told.detail || "That did not work.");
  return told.data || told;
}

async function leave() {
  const headers = { Authorization: `Bearer ${access}` };
  access = null;
  await fetch("/auth/logout", { method: "POST", headers });
}

function handle(form, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const buttons = form.querySelectorAll("button");
    buttons.forEach((button) => { button.disabled = true; });
    said.textContent = "";
    try {
      await act(event.submitter ? event.submitter.value : "login");
    } catch (error) {
      said.textContent = error instanceof TypeError ? "There was no answer. Try again." : error.message;
    }
    buttons.forEach((button) => { button.disabled = false; });
  });
}

handle(login, async (wish) => {
  const who = { email: find("email").value, password: find("password").value };
  if (wish === "signup") {
    await post("/auth/signup", who);
    said.textContent = "Confirm your address by the letter that we have sent, then log in here.";
    return;
  }
  access = (await post("/auth/login", who)).access_token;
  try {
    const shown = await post("/invitations/look", { invitation });
    find("organization").textContent = shown.organization_name;
    find("role").textContent = shown.role;
  } catch (error) {
    await leave();
    throw error;
  }
  login.hidden = true;
  answer.hidden = false;
});

handle(answer, async (wish) => {
  await post(`/invitations/${wish === "decline" ? "decline" : "accept"}`, { invitation });
  answer.hidden = true;
  said.textContent = wish === "decline" ? "You have declined." : "You are a member now.";
  await leave();
});
