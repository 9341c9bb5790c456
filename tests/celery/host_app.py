"""The Celery app of a host project, as Celery's documentation has it."""

from celery import Celery

app = Celery("host")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
