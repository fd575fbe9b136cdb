"""What must happen at once in Redis, as Lua: each script moves a job or an execution from one state to the next.

Keys, all below one prefix:

    job:ID       hash   owner, operation, execution, created_at, join, base; cancelled_at, cancel_at
    exec:ID      hash   state, fence, attempts, share, work, seconds, ttl; step, steps; what FINISH writes
    exec:ID:jobs set    jobs that want it            exec:ID:events  list  what happened to it, as JSON
    share:SHA    string execution that identical work joins
    idem:SHA     string job id and fingerprint       queue, running, done:STATE  sorted sets of executions and jobs
    queued       hash   milliseconds of device time of each execution in the queue; queued_ms: their sum, changed by the
                        same scripts in whole numbers, so that it cannot drift
    notifications  channel: "execution" whenever something happened to it

An attempt at an execution holds a fence, the number of the attempt; whatever a stale attempt sends is refused. Every
script may be sent twice, when the answer to the first was lost with a connection, and then changes nothing more.
"""

from __future__ import annotations

# the clock is that of Redis, so that machines whose clocks differ agree; a test gives its own
_TIME = """
local function time(given)
  if given ~= '' then return given end
  local t = redis.call('TIME')
  return string.format('%d.%03d', t[1], math.floor(t[2] / 1000))
end
"""

# jobs of an execution that has ended: forget all of it after `ttl` more seconds
_FORGET = """
local function forget(p, e, ttl)
  ttl = math.max(1, math.ceil(ttl))
  for _, j in ipairs(redis.call('SMEMBERS', p..'exec:'..e..':jobs')) do
    redis.call('EXPIRE', p..'job:'..j, ttl)
    local k = redis.call('HGET', p..'job:'..j, 'idem')
    if k and k ~= '' then redis.call('EXPIRE', p..'idem:'..k, ttl) end
  end
  redis.call('EXPIRE', p..'exec:'..e, ttl)
  redis.call('EXPIRE', p..'exec:'..e..':jobs', ttl)
  redis.call('EXPIRE', p..'exec:'..e..':events', ttl)
end
local function leave_queue(p, e)
  redis.call('ZREM', p..'queue', e)
  local ms = redis.call('HGET', p..'queued', e)
  if ms then
    redis.call('HDEL', p..'queued', e)
    redis.call('DECRBY', p..'queued_ms', ms)
  end
end
"""

# prefix, job, owner, operation, now, fingerprint, share, execution, work, milliseconds, ttl, idempotency, most, keep
# -> reused | known ID | busy N | ok EXECUTION FRESH
SUBMIT = (
    _TIME
    + """
local p, job, owner, operation, now, fp, share, e, work, ms, ttl, idem, most, keep = unpack(ARGV)
now = time(now)
if redis.call('EXISTS', p..'job:'..job) == 1 then
  local before = redis.call('HGET', p..'job:'..job, 'execution')
  return {'ok', before, before == e and '1' or '0'}
end
if idem ~= '' then
  local known = redis.call('GET', p..'idem:'..idem)
  if known then
    local id, before = string.match(known, '^(%S+) (%S+)$')
    if before ~= fp then return {'reused'} end
    return {'known', id}
  end
end
local fresh, state = 1, 'queued'
local shared = share ~= '' and redis.call('GET', p..'share:'..share)
if shared then
  local s, expires = unpack(redis.call('HMGET', p..'exec:'..shared, 'state', 'expires_at'))
  local kept = s == 'succeeded' and tonumber(expires) - tonumber(now) > tonumber(ttl) / 2
  if s == 'queued' or s == 'running' or kept then e, fresh, state = shared, 0, s end
end
if fresh == 1 then
  local n = redis.call('ZCARD', p..'queue')
  if n >= tonumber(most) then return {'busy', tostring(n)} end
  redis.call('HSET', p..'exec:'..e, 'state', 'queued', 'share', share, 'work', work, 'seconds', ms / 1000,
    'ttl', ttl, 'attempts', 0, 'queued_at', now)
  redis.call('EXPIRE', p..'exec:'..e, keep)
  redis.call('ZADD', p..'queue', redis.call('INCR', p..'sequence'), e)
  redis.call('HSET', p..'queued', e, ms)
  redis.call('INCRBY', p..'queued_ms', ms)
  if share ~= '' then redis.call('SET', p..'share:'..share, e, 'EX', keep) end
elseif state ~= 'succeeded' and tonumber(redis.call('HGET', p..'exec:'..e, 'ttl')) < tonumber(ttl) then
  redis.call('HSET', p..'exec:'..e, 'ttl', ttl)
end
local join = redis.call('LLEN', p..'exec:'..e..':events')
if state == 'succeeded' then join = join - 1 end
redis.call('HSET', p..'job:'..job, 'owner', owner, 'operation', operation, 'execution', e, 'created_at', now,
  'join', join, 'base', state == 'queued' and 1 or 2, 'idem', idem)
local life = keep
if state == 'succeeded' then life = math.max(1, redis.call('TTL', p..'exec:'..e)) end -- nothing will shorten it later
redis.call('EXPIRE', p..'job:'..job, life)
redis.call('SADD', p..'exec:'..e..':jobs', job)
redis.call('EXPIRE', p..'exec:'..e..':jobs', life)
if idem ~= '' then redis.call('SET', p..'idem:'..idem, job..' '..fp, 'EX', life) end
if state == 'succeeded' then
  redis.call('ZADD', p..'done:succeeded', redis.call('HGET', p..'exec:'..e, 'expires_at'), job)
end
return {'ok', e, tostring(fresh)}
"""
)

# prefix, execution, now, call, most deaths -> nothing | fence, work, exhausted: finish it as failed
# An attempt that neither ended nor was released before the next one began died with its worker.
BEGIN = (
    _TIME
    + _FORGET
    + """
local p, e, now, call, most = unpack(ARGV)
now = time(now)
local key = p..'exec:'..e
local state, begun, fence, released = unpack(redis.call('HMGET', key, 'state', 'begun', 'fence', 'released'))
if state ~= 'queued' and state ~= 'running' then leave_queue(p, e) return {} end
if begun ~= call then
  if state == 'running' and released ~= fence then redis.call('HINCRBY', key, 'deaths', 1) end
  fence = redis.call('HINCRBY', key, 'attempts', 1)
  redis.call('HSET', key, 'fence', fence, 'begun', call, 'state', 'running')
  leave_queue(p, e)
  redis.call('ZADD', p..'running', now, e)
  if state == 'queued' then
    redis.call('HSET', key, 'started_at', now)
    redis.call('RPUSH', key..':events', cjson.encode({s='running', at=now}))
    redis.call('EXPIRE', key..':events', redis.call('TTL', key))
  end
  redis.call('PUBLISH', p..'notifications', e)
end
local died = tonumber(redis.call('HGET', key, 'deaths') or '0')
return {tostring(fence), redis.call('HGET', key, 'work'), died >= tonumber(most) and '1' or '0'}
"""
)

# prefix, execution, fence -> nothing; the attempt ends without a result and without blame
RELEASE = """
local p, e, fence = unpack(ARGV)
local state, own = unpack(redis.call('HMGET', p..'exec:'..e, 'state', 'fence'))
if state == 'running' and own == fence then redis.call('HSET', p..'exec:'..e, 'released', fence) end
"""

# prefix, execution, fence, now -> 1, or 0 where the attempt is over; the score in `running` is the last sign of life
HEARTBEAT = (
    _TIME
    + """
local p, e, fence, now = unpack(ARGV)
now = time(now)
local state, own = unpack(redis.call('HMGET', p..'exec:'..e, 'state', 'fence'))
if state ~= 'running' or own ~= fence then return 0 end
redis.call('ZADD', p..'running', 'XX', now, e)
return 1
"""
)

# prefix, execution, fence, step, steps, preview blob -> 1, or 0 where the attempt is over
PROGRESS = """
local p, e, fence, step, steps, preview = unpack(ARGV)
local key = p..'exec:'..e
local state, own, before = unpack(redis.call('HMGET', key, 'state', 'fence', 'step'))
if state ~= 'running' or own ~= fence then return 0 end
if tonumber(step) > tonumber(before or '0') then
  redis.call('HSET', key, 'step', step, 'steps', steps)
  redis.call('RPUSH', key..':events', cjson.encode({n=tonumber(step), of=tonumber(steps)}))
  if preview ~= '' then
    redis.call('RPUSH', key..':events', cjson.encode({n=tonumber(step), of=tonumber(steps), blob=preview}))
  end
  redis.call('PUBLISH', p..'notifications', e)
end
return 1
"""

# prefix, execution, fence, state, now, gone_ttl, then field, value ... -> 1, or 0 where the attempt was over before
FINISH = (
    _TIME
    + _FORGET
    + """
local p, e, fence, state, now, gone = unpack(ARGV, 1, 6)
now = time(now)
local key = p..'exec:'..e
local present, own, ttl, share = unpack(redis.call('HMGET', key, 'state', 'fence', 'ttl', 'share'))
if present == state and own == fence then return 1 end
if present ~= 'running' or own ~= fence then return 0 end
local expires = string.format('%.3f', tonumber(now) + tonumber(ttl))
redis.call('HSET', key, 'state', state, 'finished_at', now, 'expires_at', expires, unpack(ARGV, 7))
redis.call('RPUSH', key..':events', cjson.encode({s=state, at=now}))
redis.call('ZREM', p..'running', e)
if redis.call('GET', p..'share:'..share) == e then
  if state == 'succeeded' then redis.call('EXPIRE', p..'share:'..share, math.max(1, math.ceil(tonumber(ttl))))
  else redis.call('DEL', p..'share:'..share) end
end
for _, j in ipairs(redis.call('SMEMBERS', key..':jobs')) do redis.call('ZADD', p..'done:'..state, expires, j) end
forget(p, e, tonumber(ttl) + tonumber(gone))
redis.call('PUBLISH', p..'notifications', e)
return 1
"""
)

# prefix, job, now, gone_ttl -> nothing
CANCEL = (
    _TIME
    + _FORGET
    + """
local p, job, now, gone = unpack(ARGV)
now = time(now)
local e, cancelled = unpack(redis.call('HMGET', p..'job:'..job, 'execution', 'cancelled_at'))
if not e or cancelled then return end
local key = p..'exec:'..e
local state, share, ttl = unpack(redis.call('HMGET', key, 'state', 'share', 'ttl'))
if state ~= 'queued' and state ~= 'running' then return end
local expires = string.format('%.3f', tonumber(now) + tonumber(ttl))
redis.call('HSET', p..'job:'..job, 'cancelled_at', now, 'cancel_at', redis.call('LLEN', key..':events'),
  'expires_at', expires)
redis.call('SREM', key..':jobs', job)
redis.call('EXPIRE', p..'job:'..job, math.max(1, math.ceil(tonumber(ttl) + tonumber(gone))))
redis.call('ZADD', p..'done:cancelled', expires, job)
if redis.call('SCARD', key..':jobs') == 0 then
  redis.call('HSET', key, 'state', 'cancelled')
  leave_queue(p, e)
  redis.call('ZREM', p..'running', e)
  if redis.call('GET', p..'share:'..share) == e then redis.call('DEL', p..'share:'..share) end
  forget(p, e, tonumber(ttl) + tonumber(gone))
end
redis.call('PUBLISH', p..'notifications', e)
"""
)
