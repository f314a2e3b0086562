"""What the proxies behind one name share: their tickets, and who is connected."""

from vncauthproxy import settings
from vncauthproxy.stores import redis_client
from vncauthproxy.stores.redis_registry import RedisRegistry
from vncauthproxy.stores.registry import LocalRegistry, Registry
from vncauthproxy.stores.ticket_stores import MemoryStore, RedisStore
from vncauthproxy.tickets import Store


def open_shared(
    chosen: settings.Tickets, limits: settings.Limits, name: str
) -> tuple[Store, Registry]:
    """In Redis where the settings name one, in this process otherwise. name: the proxy's.

    Both in the same place, since to let somebody in changes both.
    """
    if not chosen.redis:
        memory = MemoryStore()
        return memory, LocalRegistry(memory)
    client = redis_client.connect(chosen.redis, chosen.redis_ca)
    return RedisStore(client), RedisRegistry(client, limits, name)
