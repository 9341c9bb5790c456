from django.apps import AppConfig


class AssistantsConfig(AppConfig):
    name = "example_project.assistants"
    verbose_name = "assistants"
