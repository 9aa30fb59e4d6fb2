"""Autobahn|Testsuite against oompa's ``Channel``, in both roles: ``python -m tests.autobahn``."""
