-- wrk's side of the comparison: one GET target, each call with the next payment of a file, and the summary as one line
-- of JSON. Arguments behind `--`: the target path, the file of payments, and "once" or "again" (begin again at its end).
local payments, turn, again, head = {}, 0, false, ""
local threads = {}
out = false -- global: `done` reads it from another state

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  for payment in io.lines(args[2]) do payments[#payments + 1] = payment end
  again = args[3] == "again"
  head = "GET " .. args[1] .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nPAYMENT-SIGNATURE: "
end

function request()
  turn = turn + 1
  if turn > #payments then
    if not again then
      out = true
      wrk.thread:stop()
    end
    turn = 1
  end
  return head .. payments[turn] .. "\r\n\r\n"
end

function done(summary, latency, _)
  local errors, exhausted = summary.errors, false
  for _, thread in ipairs(threads) do exhausted = exhausted or thread:get("out") end
  io.write(string.format(
    'SUMMARY {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "bad_status": %d, "socket_errors": %d, "exhausted": %s}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, tostring(exhausted)))
end
