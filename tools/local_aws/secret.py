"""Reads and changes the deployed signing secret."""

import boto3


class Secret:
    """One secret in Secrets Manager. The functions use its current and its previous version."""

    def __init__(self, arn: str):
        self._client = boto3.client("secretsmanager")
        self.arn = arn

    def value(self) -> str:
        """Returns the current value."""
        return self._client.get_secret_value(SecretId=self.arn)["SecretString"]

    def put(self, value: str) -> None:
        """Stores a value. The value before becomes the previous version."""
        self._client.put_secret_value(SecretId=self.arn, SecretString=value)
