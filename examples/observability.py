"""A server that is seen from outside: metrics for Prometheus, traces, and logs as JSON that know their trace.

Run it with ``python -m examples.observability``, after ``pip install 'oompa[prometheus,otel]' opentelemetry-sdk``: it calls
itself, and prints its logs, spans and metrics. ``gunicorn -c python:oompa.gunicorn examples.observability:server`` serves it,
and deploy/grafana.json is a dashboard of what http://localhost:8000/metrics tells.
"""

import json
import logging
import sys
from urllib.request import urlopen

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import oompa.opentelemetry
import oompa.prometheus
from examples.calculator import schema
from oompa import Client, Server, current_request


class JsonFormatter(logging.Formatter):
    def format(self, record):
        line = {"time": record.created, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        span, request = trace.get_current_span().get_span_context(), current_request()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        elif request and "traceparent" in request.meta:  # logged when the span of the task has ended, as that it raised
            line["trace_id"] = str(request.meta["traceparent"])[3:35]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def shown(span):  # in production: a BatchSpanProcessor, and an exporter that sends them somewhere, such as OTLPSpanExporter
    return f"{span.kind.name} span {span.name}: trace {span.context.trace_id:032x}, {span.status.status_code.name}\n"


logs = logging.StreamHandler(sys.stdout)
logs.setFormatter(JsonFormatter())
logging.basicConfig(level=logging.INFO, handlers=[logs])
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=shown)))
trace.set_tracer_provider(provider)
server = Server(schema)
oompa.prometheus.instrument(server, path="/metrics")
oompa.opentelemetry.instrument(server)

if __name__ == "__main__":
    server.listen(0).result()
    with Client(f"ws://localhost:{server.port}") as client:
        oompa.opentelemetry.instrument(client)
        client.dispatch("DIV", {"x": 1, "y": 0}).exception()
        with urlopen(f"http://localhost:{server.port}/metrics") as page:
            print(*(line for line in page.read().decode().splitlines() if line[0] != "#" and "_bucket" not in line), sep="\n")
    server.close().result()
