"""Fair queue between tenants: whose chunk, or whose run, a worker takes next.

A message in a queue says that there is work, and names a chunk or run of it. Which one its reader takes is decided when
it asks: what waits is listed by tenant, and of the tenants of which the asking process holds least, the one comes next
that was served longest ago. Within a tenant interactive work comes first, unless the process already holds
:data:`INTERACTIVE_SHARE` times as much of it; then what was sent first.

The lists are hints, like all in Redis. If they are lost, or Redis does not answer, a reader does what its message
names; if messages are lost, the sweepers send as many as there is work waiting (:meth:`TenantQueues.without_message`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from service.broker import redis_keys

if TYPE_CHECKING:
    from redis import Redis

INTERACTIVE_SHARE = 4
"""A process holds so many interactive chunks of a tenant for each other one of it that waits."""
_TTL_S = 7 * 86_400

# KEYS waiting, served, queue; ARGV tenant, ttl_s, number, so many names, so many messages.
# A name that waits already keeps its place. The time in microseconds is a place that only grows.
_ADD = """
local now = redis.call('TIME')
local place, count = now[1] * 1000000 + now[2], tonumber(ARGV[3])
for i = 1, count do redis.call('ZADD', KEYS[1], 'NX', place + i, ARGV[3 + i]) end
redis.call('ZADD', KEYS[2], 'NX', place, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
for i = 1, count do redis.call('LPUSH', KEYS[3], ARGV[3 + count + i]) end
return count
"""

# KEYS served; ARGV what waiting keys begin with, slots, 1 to stay below the share, interactive share, number of queues,
# so many queues, then tenant, queue and number of all that the asking process holds. Returns tenant, queue and name.
# One more tenants are looked at than the process holds something of, so that one of them holds nothing.
_TAKE = """
local prefix, slots, below, weight = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local queues, held, holders = {}, {}, 0
for i = 1, tonumber(ARGV[5]) do queues[i] = ARGV[5 + i] end
for i = 6 + #queues, #ARGV, 3 do
  if not held[ARGV[i]] then held[ARGV[i]] = 0; holders = holders + 1 end
  held[ARGV[i]] = held[ARGV[i]] + ARGV[i + 2]
  held[ARGV[i] .. ':' .. ARGV[i + 1]] = tonumber(ARGV[i + 2])
end
local best, best_queue, stale
repeat
  stale = false
  local tenants = redis.call('ZCARD', KEYS[1])
  for i = 6 + #queues, #ARGV, 3 do
    if not redis.call('ZSCORE', KEYS[1], ARGV[i]) then tenants = tenants + 1 end
  end
  local share = math.max(1, math.floor(slots / math.max(1, tenants)))
  for _, tenant in ipairs(redis.call('ZRANGE', KEYS[1], 0, holders)) do
    local chosen, chosen_holds, waits
    for _, queue in ipairs(queues) do
      if redis.call('EXISTS', prefix .. queue .. ':' .. tenant) == 1 then
        waits = true
        local holds = held[tenant .. ':' .. queue] or 0
        if not (below and holds >= share) and (not chosen or chosen_holds >= weight * (holds + 1)) then
          chosen, chosen_holds = queue, holds
        end
      end
    end
    if not waits then
      redis.call('ZREM', KEYS[1], tenant)
      stale = true
    elseif chosen and (not best or (held[tenant] or 0) < (held[best] or 0)) then
      best, best_queue = tenant, chosen
    end
  end
until best or not stale
if not best then return false end
local name = redis.call('ZPOPMIN', prefix .. best_queue .. ':' .. best)[1]
local now, waits = redis.call('TIME'), 0
for _, queue in ipairs(queues) do waits = waits + redis.call('EXISTS', prefix .. queue .. ':' .. best) end
if waits == 0 then redis.call('ZREM', KEYS[1], best)
else redis.call('ZADD', KEYS[1], now[1] * 1000000 + now[2], best) end
return {best, best_queue, name}
"""

# KEYS waiting, served; ARGV tenant, ttl_s, names. Returns those that wait; their tenant is listed again if it is not.
_WAITING_OF = """
local found = {}
for i = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then found[#found + 1] = ARGV[i] end
end
if #found > 0 then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[2], 'NX', now[1] * 1000000 + now[2], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return found
"""

# KEYS served, then the queues; ARGV what waiting keys begin with, limit, the queues' names. Returns queue, tenant and
# name of what waits, as many as there are messages too few, at most `limit`.
_WITHOUT_MESSAGE = """
local found, waiting, messages = {}, 0, 0
for i = 2, #KEYS do messages = messages + redis.call('LLEN', KEYS[i]) end
local tenants = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, tenant in ipairs(tenants) do
  for i = 3, #ARGV do waiting = waiting + redis.call('ZCARD', ARGV[1] .. ARGV[i] .. ':' .. tenant) end
end
local lacking = math.min(waiting - messages, tonumber(ARGV[2]))
for _, tenant in ipairs(tenants) do
  for i = 3, #ARGV do
    if lacking <= 0 then return found end
    for _, name in ipairs(redis.call('ZRANGE', ARGV[1] .. ARGV[i] .. ':' .. tenant, 0, lacking - 1)) do
      found[#found + 1] = {ARGV[i], tenant, name}
      lacking = lacking - 1
    end
  end
end
return found
"""


@dataclass(frozen=True)
class QueueGroup:
    """Queues whose readers are the same processes. ``queues`` come in the order in which a tenant's are looked at."""

    name: redis_keys.QueueGroupName
    queues: tuple[str, ...]


class Flow(NamedTuple):
    """A tenant's work in one queue."""

    tenant: str
    queue: str


@dataclass(frozen=True)
class QueuedItem:
    """The ``name`` of a chunk or run that was taken from its tenant's list."""

    flow: Flow
    name: str


@dataclass(frozen=True)
class TenantQueues:
    """The lists of what waits in the queues of ``group``. Every call raises RedisError if Redis fails."""

    redis: Redis
    group: QueueGroup

    def add(self, flow: Flow, messages: Mapping[str, str]) -> None:
        """Lists the names of ``messages`` as waiting and sends the messages, in order: all of it or nothing."""
        self.redis.eval(
            _ADD,
            3,
            redis_keys.waiting(flow.queue, flow.tenant),
            redis_keys.fair_queue(self.group.name),
            flow.queue,
            flow.tenant,
            _TTL_S,
            len(messages),
            *messages,
            *messages.values(),
        )

    def take(self, holds: Mapping[Flow, int], slots: int, *, below_share: bool = False) -> QueuedItem | None:
        """What comes next for a process of ``slots`` slots that ``holds`` so much of each flow; None if nothing waits.

        ``below_share``: only of a flow of which the process holds less than a tenant's equal part of its slots, where
        tenants count that wait or that it holds something of; that part is one slot at least.
        """
        held = [value for flow, number in holds.items() for value in (*flow, number)]
        found = self.redis.eval(
            _TAKE,
            1,
            redis_keys.fair_queue(self.group.name),
            redis_keys.WAITING_PREFIX,
            slots,
            int(below_share),
            INTERACTIVE_SHARE,
            len(self.group.queues),
            *self.group.queues,
            *held,
        )
        if not found:
            return None
        tenant, queue, name = map(_text, found)
        return QueuedItem(Flow(tenant, queue), name)

    def waiting(self, flow: Flow, names: Sequence[str]) -> set[str]:
        """Those of ``names`` that wait in the flow."""
        if not names:
            return set()
        keys = (redis_keys.waiting(flow.queue, flow.tenant), redis_keys.fair_queue(self.group.name))
        return set(map(_text, self.redis.eval(_WAITING_OF, 2, *keys, flow.tenant, _TTL_S, *names)))

    def without_message(self, limit: int) -> list[QueuedItem]:
        """Work that waits while there are fewer messages than work: as much as messages are lacking, up to ``limit``.

        Messages get lost with the worker that has read them, and where Redis lost a queue alone.
        """
        queues = self.group.queues
        keys = (redis_keys.fair_queue(self.group.name), *queues)
        found = self.redis.eval(_WITHOUT_MESSAGE, len(keys), *keys, redis_keys.WAITING_PREFIX, limit, *queues)
        return [QueuedItem(Flow(_text(tenant), _text(queue)), _text(name)) for queue, tenant, name in found]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
