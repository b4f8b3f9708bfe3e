"""The one list of all aggregates: codecs, subjects, the event catalogue and its types derive from it."""

from typing import Any

from domain.access import ACCESS
from domain.api_key import API_KEY
from domain.decider import Decider
from domain.deployment import DEPLOYMENT
from domain.host import HOST
from domain.instance import INSTANCE
from domain.model import MODEL
from domain.offering import OFFERING
from domain.organization import ORGANIZATION
from domain.provider_account import PROVIDER_ACCOUNT
from domain.provider_credentials import PROVIDER_CREDENTIALS
from domain.reservation import RESERVATION
from domain.session import SESSION
from domain.setting import SETTING
from domain.share import SHARE
from domain.user import USER

AGGREGATES: tuple[Decider[Any, Any, Any], ...] = (
    ORGANIZATION,
    USER,
    SESSION,
    API_KEY,
    ACCESS,
    MODEL,
    OFFERING,
    SHARE,
    DEPLOYMENT,
    INSTANCE,
    SETTING,
    PROVIDER_CREDENTIALS,
    PROVIDER_ACCOUNT,
    HOST,
    RESERVATION,
)
