# The guest's half of the command channel; enters as a credential, run by slipway-exec.service. See channel/mod.rs.
# One loop reads requests from the control port; each request runs in a process group of its own, so that the loop can
# end it. What the request writes goes through pipes (so that /dev/stdout can be opened again) to the two other ports.
umask 022
cd /
export HOME=/root LOGNAME=root USER=root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -f

# A pipe that nobody writes: reading it with a timeout is a sleep without a process.
exec {idle}<> <(:)
nap() { read -r -t "$1" -u "$idle" _; }

# Sets REPLY to the device of the port with the given name. From sysfs: it needs no udev.
port() {
    local dir name
    while :; do
        set +f
        for dir in /sys/class/virtio-ports/*; do
            name=
            { read -r name <"$dir/name"; } 2>/dev/null
            if [[ $name == "$1" && -c /dev/${dir##*/} ]]; then
                REPLY=/dev/${dir##*/}
                set -f
                return
            fi
        done
        nap 0.1
    done
}

# A new line first: it ends whatever was cut off before it.
say() { printf '\n%s\n' "$*" >&"$control"; }

port org.slipway.control
exec {control}<>"$REPLY"
port org.slipway.stdout
exec {out}>"$REPLY"
port org.slipway.stderr
exec {err}>"$REPLY"

read -r boot </proc/sys/kernel/random/boot_id
work=/run/slipway-exec
mkdir -p -m 0700 "$work"
session=-
worker=

# Only while its leader lives: what a finished request left in the background stays.
end_worker() {
    [[ -n $worker ]] && kill -0 "$worker" 2>/dev/null && kill -KILL -- "-$worker" 2>/dev/null
    worker=
}

# Waits for the two copying processes; what was left running in the background may hold their pipes open for ever.
settle() {
    local turn
    for turn in {1..30}; do
        kill -0 "$1" 2>/dev/null || kill -0 "$2" 2>/dev/null || return
        nap 0.0"$((turn < 9 ? turn : 9))"
    done
    kill "$1" "$2" 2>/dev/null
    wait "$1" "$2" 2>/dev/null
}

work_on() {
    local id=$1 text=$2 input=$3 o e first second code
    printf '\036%s.%s+\036' "$session" "$id" >&"$out"
    printf '\036%s.%s+\036' "$session" "$id" >&"$err"
    exec {o}> >(exec cat >&"$out")
    first=$!
    exec {e}> >(exec {o}>&- cat >&"$err")
    second=$!
    (
        exec {control}>&- {out}>&- {err}>&- {idle}>&- >&"$o" 2>&"$e" {o}>&- {e}>&- <"$input"
        unset session boot work worker first second input control out err idle o e id code
        set +f
        eval "unset text
$text"
    )
    code=$?
    exec {o}>&- {e}>&-
    settle "$first" "$second"
    printf '\036%s.%s-\036' "$session" "$id" >&"$out"
    printf '\036%s.%s-\036' "$session" "$id" >&"$err"
    say "done $id $code"
}

say "hello 1 $boot $session"
while :; do
    # End of file: nobody is connected on the other side, or no longer.
    IFS= read -r -u "$control" line || { end_worker; nap 0.2; continue; }
    set -- $line
    case ${1-} in
    attach)
        end_worker
        session=${2-}
        say "hello 1 $boot $session"
        ;;
    run)
        [[ ${2-} == "$session" && $# == 4 ]] || continue
        IFS= read -r -u "$control" escaped || continue
        printf -v text %b "$escaped"
        end_worker
        input=/dev/null
        if [[ $4 != 0 ]]; then
            input=$work/input
            head -c "$4" <&"$control" | base64 -d >"$input" || { say "refused $3 the input arrived damaged"; continue; }
        fi
        # Job control gives the request its own process group.
        set -m
        work_on "$3" "$text" "$input" &
        worker=$!
        set +m
        ;;
    kill)
        [[ ${2-} == "$session" ]] && end_worker
        ;;
    esac
done
