"""The deployed signing secret."""

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
        """Puts a value, for the first time or as a rotation."""
        self._client.put_secret_value(SecretId=self.arn, SecretString=value)
