#!lua flags=allow-oom
-- token: an OAuth token that all processes share, fetched by one at a time.
-- ARGV: key, 'lock', holder, lease in ms · key, 'unlock', holder · key, 'put', token as stored, keep in ms
-- Returns 1 when it was done: the lock is the holder's now, or was, so that nobody frees another's.
local name, command, value, span = unpack(ARGV)
if command == 'put' then
  redis.call('SET', name, value, 'PX', span)
  return say(1)
elseif command == 'lock' then
  local taken = redis.call('SET', name .. '.lock', value, 'NX', 'PX', span)
  return (taken or redis.call('GET', name .. '.lock') == value) and 1 or 0
elseif redis.call('GET', name .. '.lock') == value then
  return say(redis.call('DEL', name .. '.lock'))
end
return 0
