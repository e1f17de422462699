#!lua flags=allow-oom
-- token: an OAuth token that all processes share, fetched by one at a time.
-- ARGV: key, 'lock', holder, lease in ms · key, 'unlock', holder · key, 'put', token as stored, keep in ms
-- Returns 1 when it was done: the lock is the holder's now, or was, so that nobody frees another's.
local name, command, value, span = unpack(ARGV)
if command == 'put' then
  redis.call('SET', name, value, 'PX', span)
  return say(1)
end
if command == 'lock' then redis.call('SET', name .. '.lock', value, 'NX', 'PX', span) end
if redis.call('GET', name .. '.lock') ~= value then return 0 end
return command == 'lock' and 1 or say(redis.call('DEL', name .. '.lock'))
