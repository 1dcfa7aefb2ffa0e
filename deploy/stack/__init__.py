"""The production topology as plain processes on one computer: `make stack`.

Real servers, each from its own package, with TLS 1.3 and a user of its own for every program. What
is proven here holds for deploy/compose.yaml, which runs the same configuration files in containers.
"""
