"""What telemq does in a Kubernetes cluster by itself: make the Secrets that hold its keys."""

from telemq.kubernetes.api import ClusterAccess, SecretsApi
from telemq.kubernetes.keyset import SecretNames, make_key_secrets

__all__ = ["ClusterAccess", "SecretNames", "SecretsApi", "make_key_secrets"]
