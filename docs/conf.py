"""How the documentation is built: `make docs`."""

project = "django-chat-sessions"
author = "django-chat-sessions contributors"
copyright = author
release = version = "0.1.0"

extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
# So that [a link](settings.md#timeouts) works here as it does where Markdown is shown as it is.
myst_heading_anchors = 3

html_theme = "furo"
html_title = "django-chat-sessions"
copybutton_prompt_text = "$ "
