#!/bin/sh
# What somebody in a sandbox would try. One line each: ok, ESCAPED or skip, the probe's id, detail.
#
#   escape_probes.sh SECRET PORT ABSTRACT
#
# SECRET is a readable file of the host, PORT one that the host listens on, ABSTRACT the
# name of an abstract Unix socket of the host. SYS_<call> are numbers of system calls.
# docs/sandbox.md lists the ids. Needs a shell, perl and what Debian always has.

secret=$1 port=$2 abstract=$3
work=${WORK:-/workspace}
cd "$work" || exit 1

say() { printf '%s\t%s\t%s\n' "$1" "$2" "$3"; }

# fails ID COMMAND...: it is refused, with whatever exit code
fails() {
  id=$1; shift
  if "$@" >/dev/null 2>&1 </dev/null; then say ESCAPED "$id" "succeeded: $*"; else say ok "$id" ''; fi
}
# works ID COMMAND...: what a tenant needs is there
works() {
  id=$1; shift
  if "$@" >/dev/null 2>&1 </dev/null; then say ok "$id" ''; else say ESCAPED "$id" "failed: $*"; fi
}
# empty ID TEXT: nothing was found
empty() { if [ -z "$2" ]; then say ok "$1" ''; else say ESCAPED "$1" "$(printf %s "$2" | tr '\n\t' '  ' | cut -c1-200)"; fi; }
gone() { id=$1; shift; found=; for path; do [ -e "$path" ] && found="$found $path"; done; empty "$id" "$found"; }
locked() { id=$1; shift; found=; for path; do sh -c 'echo x >>"$1"' sh "$path" 2>/dev/null && found="$found $path"; done; empty "$id" "$found"; }
# call ID NAME ARGUMENTS...: a system call fails; 0 as an argument is a null pointer
call() {
  id=$1 name=$2; shift 2
  eval number=\$SYS_$name
  if [ -z "$number" ]; then say skip "$id" "no $name here"; return; fi
  fails "$id" perl -e '@a = map { $_ + 0 } @ARGV; exit(syscall(shift @a, @a) == -1 ? 1 : 0)' "$number" "$@"
}
# sock ID FAMILY KIND PROTOCOL: there is no such socket
sock() { fails "$1" perl -e 'exit(socket(S, $ARGV[0], $ARGV[1], $ARGV[2]) ? 0 : 1)' "$2" "$3" "$4"; }
# reach ID HOST PORT: no connection
reach() {
  fails "$1" perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or exit 1; $SIG{ALRM} = sub { exit 1 }; alarm 2;
    exit(connect(S, pack_sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) ? 0 : 1)' "$2" "$3"
}
# tty ID REQUEST: an ioctl on the standard input is refused, whatever that is
tty() { fails "$1" perl -e '$x = "x" x 64; exit(defined(ioctl(STDIN, $ARGV[0] + 0, $x)) ? 0 : 1)' "$2"; }

# files
gone files.secret "$secret"
gone files.shadow /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh /etc/ssl/private
gone files.identity /etc/hostname /etc/machine-id /var/lib/dbus/machine-id
gone files.homes /root /home
gone files.services /var/lib /var/log /var/spool /var/backups /srv /etc/cron.d /etc/systemd
gone files.disks /boot /mnt /media /lost+found
gone files.sys /sys /sys/fs/cgroup /sys/kernel
gone files.host-run /run/systemd /run/dbus /run/docker.sock /run/podman /run/lock /run/udev /run/openclawmu-sandbox
gone files.dotdot "$work/../../../../$secret" "$work/../..$secret"
gone files.by-init "/proc/1/root/$secret" "/proc/1/cwd/$secret" "/proc/self/root$secret"
empty files.etc "$(ls /etc | grep -vxE 'alternatives|ld.so.cache|localtime|pki|ssl|passwd|group|hosts|nsswitch.conf|resolv.conf|profile')"
empty files.users "$(cut -d: -f1 /etc/passwd | grep -vxE 'root|agent|nobody')"
empty files.root "$(ls -A / | grep -vxE 'bin|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|tmp|usr|var|workspace')"
empty files.tmp "$(ls -A /tmp /dev/shm | grep -v : | grep -v '^$')"
locked files.write-system /probe /usr/probe /usr/bin/probe /etc/probe /etc/passwd /etc/ld.so.cache /bin/sh /var/probe
locked files.write-dev /dev/probe /dev/pts/probe
ln -sf "$secret" link 2>/dev/null; fails files.symlink cat link
fails files.hardlink ln /etc/passwd hard
fails files.hardlink-program ln /usr/bin/env hard-env
fails files.rename-system mv /usr/bin/env "$work/env"
fails files.remount mount -o remount,rw /
fails files.chmod-root chmod 0777 /
cp /usr/bin/env mine && chmod 755 mine
fails files.setuid chmod 4755 mine
fails files.setgid chmod 2755 mine
mkdir -p folder; fails files.setgid-folder chmod 2775 folder
fails files.install-setuid install -m 4755 /usr/bin/env installed
fails files.create-setuid perl -e 'umask 0; exit(sysopen(F, "made", 0x41, 04755) && ((stat "made")[2] & 06000) ? 0 : 1)'
fails files.chown chown 0:0 mine
fails files.chown-other chown 12345 mine
fails files.char-device mknod device c 1 1
fails files.block-device mknod device b 8 0
fails files.file-capability perl -e 'exit(syscall($ENV{SYS_setxattr} + 0, "mine", "security.capability", pack("V5", 0x02000001, 1<<21, 0, 0, 0), 20, 0) == -1 ? 1 : 0)'
call files.handle name_to_handle_at -100 0 0 0 0
call files.open-by-handle open_by_handle_at -1 0 0
fails files.fill-shm sh -c 'head -c 100000000 /dev/zero >/dev/shm/fill'; rm -f /dev/shm/fill
fails files.fill-tmp sh -c 'head -c 100000000 /dev/zero >/tmp/fill'; rm -f /tmp/fill
fails files.fill-run sh -c 'head -c 100000000 /dev/zero >/run/fill'; rm -f /run/fill
works files.workspace sh -c 'echo x >kept && rm kept'

# processes and what /proc says
own=$(for p in /proc/[0-9]*; do tr '\0\n' '  ' <$p/cmdline 2>/dev/null; echo; done | grep -vE 'probes|bwrap|^$|setsid|tr |ls|grep')
empty proc.foreign "$own"
empty proc.count "$(ls -d /proc/[0-9]* | wc -l | awk '$1 > 12')"
empty proc.init-environ "$(tr '\0' '\n' </proc/1/environ)"
empty proc.init-cmdline "$(tr '\0' '\n' </proc/1/cmdline | grep -E '^--(bind|ro-bind|setenv)')"
empty proc.canary "$(cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep OPENCLAWMU_CANARY)"
empty proc.init-caps "$(grep ^Cap /proc/1/status | grep -v '0000000000000000')"
empty proc.init-filter "$(grep -E '^(Seccomp|NoNewPrivs):' /proc/1/status | grep -vE 'Seccomp:.2|NoNewPrivs:.1')"
empty proc.init-limits "$(grep -E 'open files|core file' /proc/1/limits >/tmp/a; grep -E 'open files|core file' /proc/self/limits | diff - /tmp/a)"
empty proc.kcore "$(head -c 16 /proc/kcore 2>/dev/null)"
empty proc.kallsyms "$(head -c 16 /proc/kallsyms 2>/dev/null)"
empty proc.keys "$(cat /proc/keys /proc/key-users 2>/dev/null)"
empty proc.timers "$(head -c 16 /proc/timer_list 2>/dev/null)"
empty proc.config "$(head -c 16 /proc/config.gz 2>/dev/null | od -c | head -1 | grep -v '^0000000$')"
fails proc.kmsg head -c 1 /proc/kmsg
fails proc.slabinfo cat /proc/slabinfo
fails proc.pagemap-others sh -c 'head -c 8 /proc/1/pagemap | od -An -tx8 | grep -q "[1-9a-f]\{6\}"'
locked proc.sysrq /proc/sysrq-trigger
locked proc.core-pattern /proc/sys/kernel/core_pattern
locked proc.hostname /proc/sys/kernel/hostname /proc/sys/kernel/domainname
locked proc.namespaces /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances
locked proc.net-settings /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
locked proc.modprobe /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sys/fs/binfmt_misc/register
empty proc.writable-settings "$(find /proc/sys -type f -writable 2>/dev/null | head -5)"
fails proc.oom-score sh -c 'echo -1000 >/proc/self/oom_score_adj'
fails proc.uid-map sh -c 'echo "0 0 1" >/proc/self/uid_map'
fails proc.setgroups sh -c 'echo allow >/proc/self/setgroups'
fails proc.mount-again mount -t proc proc /tmp
fails proc.unmask umount /proc/kcore
empty proc.cgroup "$(cut -d: -f3- /proc/self/cgroup | grep -v '^/$')"
fails proc.host-pid kill -0 $(cat /proc/sys/kernel/pid_max)
kill -9 1 2>/dev/null; works proc.init-survives test -d /proc/1

# devices
empty dev.list "$(ls /dev | grep -vxE 'console|core|fd|full|null|ptmx|pts|random|shm|stderr|stdin|stdout|tty|urandom|zero')"
gone dev.memory /dev/mem /dev/kmem /dev/port /dev/kmsg
gone dev.disks /dev/sda /dev/vda /dev/nvme0n1 /dev/loop0 /dev/loop-control /dev/mapper
gone dev.machine /dev/kvm /dev/fuse /dev/net/tun /dev/vsock /dev/vhost-vsock /dev/userfaultfd /dev/uinput
gone dev.terminals /dev/tty0 /dev/tty1 /dev/vcs
empty dev.host-terminals "$(ls /dev/pts | grep -vxE 'ptmx|[0-9]')"
works dev.pty perl -e 'exit(open(F, "+</dev/ptmx") ? 0 : 1)'

# network
empty net.interfaces "$(grep : /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -vx lo)"
empty net.routes "$(tail -n +2 /proc/net/route)"
empty net.neighbours "$(tail -n +2 /proc/net/arp)"
empty net.unix "$(grep -E ' (@|/)' /proc/net/unix | grep -v egress)"
reach net.host-loopback 127.0.0.1 "$port"
reach net.any-address 0.0.0.0 "$port"
reach net.metadata 169.254.169.254 80
reach net.private 10.0.0.1 80
reach net.public 1.1.1.1 443
fails net.udp perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0) or exit 1; exit(send(S, "x", 0, pack_sockaddr_in(53, inet_aton("1.1.1.1"))) ? 0 : 1)'
fails net.ipv6 perl -MSocket -e 'socket(S, AF_INET6, SOCK_STREAM, 0) or exit 1; exit(connect(S, pack_sockaddr_in6(443, Socket::inet_pton(AF_INET6, "2606:4700:4700::1111"))) ? 0 : 1)'
fails net.names perl -e 'exit(gethostbyname("example.org") ? 0 : 1)'
fails net.abstract perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1; exit(connect(S, pack("Sa*", 1, "\0$ARGV[0]")) ? 0 : 1)' "$abstract"
sock net.raw 2 3 1
sock net.raw-any 2 3 255
sock net.ping 2 2 1
sock net.packet 17 3 0
sock net.vsock 40 1 0
sock net.netfilter 16 3 12
sock net.xfrm 16 3 6
sock net.audit 16 3 9
sock net.uevent 16 3 15
sock net.generic 16 3 16
sock net.mptcp 2 1 262
sock net.sctp 2 1 132
sock net.dccp 2 6 33
sock net.crypto 38 5 0
sock net.xdp 44 3 0
sock net.bluetooth 31 3 0
sock net.can 29 3 1
sock net.tipc 30 1 0
sock net.rds 21 5 0
sock net.kcm 41 2 0
sock net.qipcrtr 42 2 0
sock net.smc 43 1 0
sock net.phonet 35 2 0
sock net.llc 26 2 0
sock net.appletalk 5 2 0
sock net.x25 9 5 0
sock net.key 15 3 2
fails net.interface-down perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0) or exit 1; $r = pack("a16 s x14", "lo", 0); exit(ioctl(S, 0x8914, $r) ? 0 : 1)'
fails net.low-port perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or exit 1; exit(bind(S, pack_sockaddr_in(80, INADDR_ANY)) ? 0 : 1)'
works net.unix-pair perl -MSocket -e 'exit(socketpair(A, B, PF_UNIX, SOCK_STREAM, 0) ? 0 : 1)'
fails net.inet-pair perl -MSocket -e 'exit(socketpair(A, B, PF_INET, SOCK_STREAM, 0) ? 0 : 1)'

# namespaces and mounts
fails ns.user unshare -U true
fails ns.user-root unshare -Ur true
fails ns.mount unshare -m true
fails ns.net unshare -n true
fails ns.pid unshare -fp true
fails ns.ipc unshare -i true
fails ns.uts unshare -u true
fails ns.cgroup unshare -C true
fails ns.time unshare -T true
call ns.unshare-nothing unshare 0
call ns.setns setns 0 0
call ns.clone-user clone 268435984 0 0 0 0
call ns.clone3 clone3 0 0
fails ns.enter-mount nsenter -m -t 1 true
fails ns.enter-user nsenter -U -t 1 true
fails ns.enter-pid nsenter -p -t 1 true
fails ns.nested bwrap --ro-bind / / true
fails mount.tmpfs mount -t tmpfs none /tmp
fails mount.bind mount --bind /etc /tmp
fails mount.sysfs mount -t sysfs none /tmp
fails mount.cgroup mount -t cgroup2 none /tmp
fails mount.overlay mount -t overlay -o lowerdir=/usr,upperdir="$work",workdir=/tmp none /tmp
fails mount.fuse mount -t fuse none /tmp
fails mount.unmount umount "$work"
fails mount.unmount-lazy umount -l /usr
call mount.fsopen fsopen 0 0
call mount.open-tree open_tree -100 0 1
call mount.move move_mount -1 0 -1 0 0
call mount.setattr mount_setattr -1 0 0 0 0
call mount.pivot pivot_root 0 0
fails mount.chroot chroot / true

# other processes
call trace.attach ptrace 16 1 0 0
call trace.seize ptrace 16902 1 0 0
call trace.me ptrace 0 0 0 0
call trace.read process_vm_readv 1 0 0 0 0 0
call trace.write process_vm_writev 1 0 0 0 0 0
call trace.compare kcmp 1 1 0 0 0
call trace.steal pidfd_getfd 0 0 0

# privileges
fails priv.setuid perl -e '$> = 0; exit($> == 0 ? 0 : 1)'
fails priv.setgid perl -e '$) = "0 0"; exit($) =~ /^0/ ? 0 : 1)'
call priv.setresuid setresuid 0 0 0
call priv.setgroups setgroups 1 0
fails priv.su su -c true
fails priv.sudo sudo -n true
fails priv.mount-suid /usr/bin/mount -o bind /etc /tmp
empty priv.caps "$(grep ^Cap /proc/self/status | grep -v 0000000000000000)"
empty priv.no-new-privs "$(grep NoNewPrivs: /proc/self/status | grep -v 1)"
empty priv.seccomp "$(grep Seccomp: /proc/self/status | grep -v 2)"
empty priv.groups "$(id -G | tr ' ' '\n' | grep -vxE '1000|65534')"
fails priv.setpriv setpriv --reuid 0 true
fails priv.capsh capsh --keep=1 --user=root -- -c true

# keyrings
call keys.keyctl keyctl 0 -3 0
call keys.add add_key 0 0 0 0 0
call keys.request request_key 0 0 0 0

# the kernel
call kernel.bpf bpf 0 0 0
call kernel.perf perf_event_open 0 0 -1 -1 0
call kernel.userfaultfd userfaultfd 1
call kernel.io-uring io_uring_setup 1 0
call kernel.aio io_setup 1 0
call kernel.module init_module 0 0 0
call kernel.module-file finit_module -1 0 0
call kernel.unload delete_module 0 0
call kernel.kexec kexec_load 0 0 0 0
call kernel.reboot reboot 0 0 0
call kernel.swap swapon 0 0
call kernel.log syslog 3 0 0
fails kernel.dmesg dmesg
call kernel.accounting acct 0
call kernel.quota quotactl 0 0 0 0
call kernel.time clock_settime 0 0
fails kernel.date date -s 2001-01-01
call kernel.adjtime adjtimex 0
call kernel.hostname sethostname 1 0
fails kernel.set-hostname hostname evil
call kernel.personality personality 262144
call kernel.ldt modify_ldt 1 0 0
call kernel.iopl iopl 3
call kernel.ioperm ioperm 0 1 1
call kernel.hangup vhangup
call kernel.fanotify fanotify_init 0 0
call kernel.move-pages move_pages 0 0 0 0 0 0
call kernel.mempolicy set_mempolicy 1 0 0
call kernel.cookie lookup_dcookie 0 0 0
call kernel.secret-memory memfd_secret 0
call kernel.unknown no_such_call 0

# terminal
tty tty.type 21522
tty tty.linux 21532
tty tty.console 21533
tty tty.discipline 21539

# what it came with
empty fds.open "$(ls /proc/self/fd | grep -vxE '0|1|2|3')" # the last is of ls itself
empty fds.folders "$(for f in /proc/$$/fd/*; do readlink $f; done | grep -E '^/' | grep -vE '^/dev/(null|console|pts)|probes')"
empty env.names "$(env | cut -d= -f1 | grep -vxE 'PATH|HOME|USER|LOGNAME|SHELL|LANG|TMPDIR|TERM|PWD|OLDPWD|SHLVL|_|WORK|SYS_.*')"
empty env.canary "$(env | grep OPENCLAWMU_CANARY)"
empty ipc.memory "$(tail -n +2 /proc/sysvipc/shm)"
empty ipc.semaphores "$(tail -n +2 /proc/sysvipc/sem)"
empty ipc.queues "$(tail -n +2 /proc/sysvipc/msg)"

# limits
fails limits.files sh -c 'ulimit -n 1048576'
fails limits.core sh -c 'ulimit -c unlimited'
fails limits.locked sh -c 'ulimit -l unlimited'
fails limits.realtime chrt -f 1 true
fails limits.nice nice -n -5 sh -c '[ "$(nice)" -lt 0 ]'
fails limits.inotify perl -e 'for (1..65) { push @f, syscall($ENV{SYS_inotify_init1} + 0, 0); exit 1 if $f[-1] == -1 } exit 0'
fails limits.processes perl -e 'for (1..400) { $p = fork; exit 1 unless defined $p; if (!$p) { sleep 3; exit } } exit 0'
say ok end ''
