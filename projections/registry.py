"""The one list of all read models: what the projections process keeps, and whose schemas readers search."""

from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG
from projections.audit_tree import AUDIT_TREE
from projections.catalogue import CATALOGUE
from projections.deployments import DEPLOYMENTS
from projections.hosts import HOSTS
from projections.instances import INSTANCES
from projections.invitations import INVITATIONS
from projections.models import MODELS
from projections.offerings import OFFERINGS
from projections.organizations import ORGANIZATIONS
from projections.projection import Projection
from projections.provider_accounts import PROVIDER_ACCOUNTS
from projections.router import ROUTER
from projections.sessions import SESSIONS
from projections.settings import SETTINGS
from projections.shares import SHARES
from projections.usage import USAGE
from projections.users import USERS

PROJECTIONS: tuple[Projection, ...] = (
    ORGANIZATIONS,
    INVITATIONS,
    USERS,
    SESSIONS,
    API_KEYS,
    MODELS,
    OFFERINGS,
    SHARES,
    DEPLOYMENTS,
    INSTANCES,
    SETTINGS,
    PROVIDER_ACCOUNTS,
    CATALOGUE,
    HOSTS,
    ROUTER,
    USAGE,
    AUDIT_LOG,
    AUDIT_TREE,
)
