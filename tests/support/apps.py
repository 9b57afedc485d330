"""Small Flower apps, for tests."""


def project(name: str, server: str, client: str, config: str = "") -> str:
    """The pyproject.toml of an app with these components, each as module:name."""
    return f"""
[project]
name = "{name}"
version = "1.0.0"
description = "a test"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
[tool.flwr.app.config]
{config}
"""
