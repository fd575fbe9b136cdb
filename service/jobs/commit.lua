-- Compare and swap over several records, and what follows from it: all or nothing.
--
-- KEYS: first the records, then every other key that a command names.
-- ARGV: how many records there are; for each of them the text that was read ("" for none), the text to be written
--       ("" removes it) and the milliseconds it is to live; then the commands as JSON, [name, number of its key, ...],
--       "@next" standing for the next number of the sequence, the last key; then channel and message of a notification.
-- Returns 1, or 0 where a record is not as it was read. Sent twice, it changes nothing more.
local count = tonumber(ARGV[1])
local fresh, done = true, true
for i = 1, count do
  local found = redis.call('GET', KEYS[i]) or ''
  fresh = fresh and found == ARGV[3 * i - 1]
  done = done and found == ARGV[3 * i]
end
if done then return 1 end
if not fresh then return 0 end
for i = 1, count do
  if ARGV[3 * i] == '' then
    redis.call('DEL', KEYS[i])
  else
    redis.call('SET', KEYS[i], ARGV[3 * i], 'PX', ARGV[3 * i + 1])
  end
end
for _, command in ipairs(cjson.decode(ARGV[3 * count + 2])) do
  local arguments = {}
  for i = 3, #command do
    arguments[#arguments + 1] = command[i] == '@next' and redis.call('INCR', KEYS[#KEYS]) or command[i]
  end
  redis.call(command[1], KEYS[command[2]], unpack(arguments))
end
redis.call('PUBLISH', ARGV[3 * count + 3], ARGV[3 * count + 4])
return 1
