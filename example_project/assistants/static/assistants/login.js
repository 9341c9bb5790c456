// The two people of the demo fill in the form; typing does just as well.
const username = document.getElementById("id_username");
const password = document.getElementById("id_password");

for (const person of document.querySelectorAll(".person")) {
  person.addEventListener("click", () => {
    username.value = person.dataset.username;
    password.value = person.dataset.password;
    username.form.requestSubmit();
  });
}
