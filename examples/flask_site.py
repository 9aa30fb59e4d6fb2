"""A Flask site that leaves long work to a worker, and shows on /static/flask_site.html how far it is. Needs Flask-SQLAlchemy.

``gunicorn --threads 8 -b :9001 'examples.flask_site:create_worker()'``, and ``flask --app examples.flask_site run``.
"""

import os
from queue import SimpleQueue

from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy

from oompa import Client, Schema, Server, current_request

db, schema = SQLAlchemy(), Schema()
invoices = db.Table("invoices", db.Column("amount", db.Integer))


@schema.task("SUM")
def add_up():  # in an application context of its own: the database session ends with the task
    amounts = db.session.scalars(db.select(invoices.c.amount)).all()
    for done in range(len(amounts)):
        current_request().progress(done, len(amounts))
    return sum(amounts)


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE", "sqlite:////tmp/invoices.db")
    db.init_app(app)
    with app.app_context():
        db.create_all()
    worker = Client(os.environ.get("WORKER", "ws://localhost:9001/tasks"))  # one for all threads of the process

    @app.post("/invoices")
    def add_invoice():
        db.session.execute(invoices.insert().values(amount=int(request.form["amount"])))
        db.session.commit()
        return {"sum": worker.call("SUM", timeout=5.0)}

    @app.get("/sum")
    def tell_sum():
        return Response(steps(worker), mimetype="text/event-stream")

    return app


def create_worker():
    app = create_app()
    Server(schema, path="/tasks").init_app(app)
    return app


def steps(worker):
    said = SimpleQueue()
    future = worker.dispatch("SUM", on_progress=said.put)
    future.add_done_callback(said.put)
    while (step := said.get()) is not future:
        yield f"data: {step.done} of {step.total}\n\n"
    yield f"data: {future.result()}\n\n"
