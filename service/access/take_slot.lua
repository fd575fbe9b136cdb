-- Take a slot among those of a key that are not over: KEYS[1] sorted set of slots by when they end.
-- ARGV: now, the most slots, when this one ends, its name, seconds that the set is kept. Returns 1, or 0 if all are taken.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
