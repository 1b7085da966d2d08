"""The project on a local AWS: build, deploy, demonstrate. It imports `ops`, never the reverse."""
