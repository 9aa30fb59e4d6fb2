"""Tasks beside the routes of a Flask application that exists.

Run it with ``gunicorn --threads 8 examples.existing_flask_app:app``, or with ``flask --app examples.existing_flask_app run``.
"""

from flask import Flask

from examples.calculator import schema
from oompa import Server

app = Flask(__name__)


@app.get("/")
def index():
    return "an ordinary page"


tasks = Server(schema, path="/tasks")  # ws://localhost:8000/tasks
tasks.init_app(app)
