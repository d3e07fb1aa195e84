"""Write tg_runtime_cpu's native routines: `python tools/generate_cpu_worker.py`. The assembler is our own.

Everything is one block of code with six entries:

    worker(worker block)                            a thread's life: wait for a job, run its steps, again
    post(pool block, job)                           append a job to the ring and wake sleeping workers
    wait(pool block, ticket, pauses, timespec)      1 when the job is done, 0 when the time is over or a signal came
    end(signal, siginfo, ucontext)                  handler that sends a worker from wherever it is to its end
    copy(arguments, begin, end)                     a kernel that copies; one workgroup a 64 KiB chunk
    clock()                                         the time stamp counter

All workers run all steps together: each takes slices of the step's workgroups by `lock xadd` until there are none
left, and waits at a barrier. The last to arrive resets the counters, notes the time, and raises `generation`, which
the others spin on and, after `pauses` turns, sleep on by futex. Nobody who changes a word that others sleep on may
miss a sleeper: it changes the word by a locked instruction and then reads the count of sleepers, and a sleeper raises
the count by a locked instruction before futex compares the word.
Source: Linux x86-64 system calls (futex is 202) and rt_sigframe; Intel SDM for PAUSE, RDTSC, locked instructions.
"""

from __future__ import annotations

from pathlib import Path

from repository import ROOT
from tg_codegen.x86_64.assembler import assemble

__all__ = ["OUTPUT", "generate"]

OUTPUT = ROOT / "packages/tg-runtime-cpu/src/tg_runtime_cpu/native_code.py"

# Byte offsets. What is written by many stands in cache lines of its own.
LAYOUT = {
    "RING_JOBS": 64,
    "POSTED": 0x00,  # u32, jobs ever posted; workers without work sleep on it
    "IDLE_SLEEPERS": 0x04,
    "GENERATION": 0x40,  # u32, barriers ever passed
    "BARRIER_SLEEPERS": 0x44,
    "ARRIVED": 0x80,
    "NEXT_GROUP": 0xC0,
    "COMPLETED": 0x100,  # u32, jobs ever completed; callers sleep on it
    "CALLERS": 0x104,
    "WORKERS": 0x140,
    "PAUSES": 0x148,
    "RING": 0x180,
    "POOL_BYTES": 0x180 + 64 * 8,
    "WORKER_POOL": 0x00,
    "WORKER_STACK": 0x08,  # the stack pointer to end with; 0 before the worker has started
    "WORKER_ENDED": 0x10,
    "WORKER_BYTES": 0x40,
    "JOB_STEPS": 0x00,
    "JOB_START": 0x08,
    "JOB_DONE": 0x10,  # steps done so far
    "JOB_BYTES": 0x40,
    "STEP_CODE": 0x00,
    "STEP_ARGUMENTS": 0x08,
    "STEP_GROUPS": 0x10,
    "STEP_SLICE": 0x18,
    "STEP_END": 0x20,
    "STEP_BYTES": 0x40,
    "COPY_CHUNK_BYTES": 1 << 16,
}

WAIT, WAKE = 128, 129  # FUTEX_WAIT and FUTEX_WAKE with FUTEX_PRIVATE_FLAG


def _futex_wake(word: str, sleepers: str, base: str, done: str) -> str:
    return f"""
        cmp dword ptr [{base} + {sleepers}], 0
        je {done}
        lea rdi, [{base} + {word}]
        mov esi, {WAKE}
        mov edx, 0x7fffffff
        mov eax, 202
        syscall
    """


def _spin_then_sleep(name: str, word: str, sleepers: str, old: str, awake: str) -> str:
    """Until the pool's word is no longer `old`; `old` is a register that system calls keep."""
    return f"""
    {name}:
        mov ecx, dword ptr [rbx + PAUSES]
    {name}_spin:
        cmp dword ptr [rbx + {word}], {old}
        jne {awake}
        pause
        dec ecx
        jg {name}_spin
        lock inc dword ptr [rbx + {sleepers}]
        lea rdi, [rbx + {word}]
        mov esi, {WAIT}
        mov edx, {old}
        xor r10d, r10d
        mov eax, 202
        syscall
        lock dec dword ptr [rbx + {sleepers}]
        jmp {name}
    """


SOURCE = f"""
    worker:                             # rbx pool, ebp job number, r12 step, r13 steps left, r14 job
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        push rdi
        mov rbx, qword ptr [rdi + WORKER_POOL]
        mov qword ptr [rdi + WORKER_STACK], rsp
        xor ebp, ebp
    {_spin_then_sleep("idle", "POSTED", "IDLE_SLEEPERS", "ebp", "job")}
    job:
        mov eax, ebp
        and eax, RING_JOBS - 1
        mov r14, qword ptr [rbx + 8*rax + RING]
        test r14, r14
        je ending
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov qword ptr [r14 + JOB_START], rax        # every worker, before anyone passes the first barrier
        mov qword ptr [r14 + JOB_DONE], 0
        mov r13, qword ptr [r14 + JOB_STEPS]
        lea r12, [r14 + JOB_BYTES]
    step:
        mov r15, qword ptr [r12 + STEP_SLICE]
    take:
        mov rsi, r15
        lock xadd qword ptr [rbx + NEXT_GROUP], rsi
        mov rcx, qword ptr [r12 + STEP_GROUPS]
        cmp rsi, rcx
        jge arrive
        lea rdx, [rsi + r15]
        cmp rdx, rcx
        cmovg rdx, rcx
        mov rdi, qword ptr [r12 + STEP_ARGUMENTS]
        call qword ptr [r12 + STEP_CODE]
        jmp take
    arrive:
        mov r15d, dword ptr [rbx + GENERATION]
        mov eax, 1
        lock xadd qword ptr [rbx + ARRIVED], rax
        inc rax
        cmp rax, qword ptr [rbx + WORKERS]
        jne barrier
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov qword ptr [r12 + STEP_END], rax
        inc qword ptr [r14 + JOB_DONE]
        mov qword ptr [rbx + ARRIVED], 0
        mov qword ptr [rbx + NEXT_GROUP], 0
        cmp r13, 1
        jne release
        lock inc dword ptr [rbx + COMPLETED]
        {_futex_wake("COMPLETED", "CALLERS", "rbx", "release")}
    release:
        lock inc dword ptr [rbx + GENERATION]
        {_futex_wake("GENERATION", "BARRIER_SLEEPERS", "rbx", "passed")}
        jmp passed
    {_spin_then_sleep("barrier", "GENERATION", "BARRIER_SLEEPERS", "r15d", "passed")}
    passed:
        add r12, STEP_BYTES
        dec r13
        jne step
        inc ebp
        jmp idle
    ending:
        mov rdi, qword ptr [rsp]
        mov qword ptr [rdi + WORKER_ENDED], 1
        pop rdi
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        xor eax, eax
        ret

        .p2align 4
    end:
        mov rax, qword ptr [rsi + 24]               # si_value: the worker block
        mov rcx, qword ptr [rax + WORKER_STACK]
        test rcx, rcx
        je end_ignored
        cmp qword ptr [rax + WORKER_ENDED], 0
        jne end_ignored
        mov qword ptr [rdx + 160], rcx              # ucontext: rsp
        lea rcx, [rip + ending]
        mov qword ptr [rdx + 168], rcx              # rip
        and dword ptr [rdx + 176], 0xfffffbff       # eflags without the direction flag
    end_ignored:
        ret

        .p2align 4
    post:
        mov eax, dword ptr [rdi + POSTED]
        and eax, RING_JOBS - 1
        mov qword ptr [rdi + 8*rax + RING], rsi
        mov r8, rdi
        lock inc dword ptr [r8 + POSTED]
        {_futex_wake("POSTED", "IDLE_SLEEPERS", "r8", "posted")}
    posted:
        ret

        .p2align 4
    wait:
        mov r8, rdi
        mov r9d, esi
        mov r10, rcx
    wait_spin:
        mov ecx, dword ptr [r8 + COMPLETED]
        mov eax, ecx
        sub eax, r9d
        jns wait_done
        pause
        dec edx
        jg wait_spin
        lock inc dword ptr [r8 + CALLERS]
        lea rdi, [r8 + COMPLETED]
        mov esi, {WAIT}
        mov edx, ecx
        mov eax, 202
        syscall
        lock dec dword ptr [r8 + CALLERS]
        mov eax, dword ptr [r8 + COMPLETED]
        sub eax, r9d
        jns wait_done
        xor eax, eax
        ret
    wait_done:
        mov eax, 1
        ret

        .p2align 4
    copy:
        mov r8, rdi
        mov rcx, rdx
        shl rcx, 16
        cmp rcx, qword ptr [r8 + 16]
        cmovg rcx, qword ptr [r8 + 16]
        shl rsi, 16
        sub rcx, rsi
        mov rdi, qword ptr [r8]
        add rdi, rsi
        add rsi, qword ptr [r8 + 8]
        rep movsb
        ret

        .p2align 4
    clock:
        rdtsc
        shl rdx, 32
        or rax, rdx
        ret
"""


def generate() -> str:
    """The text of the generated module."""
    source = SOURCE.replace("RING_JOBS - 1", str(LAYOUT["RING_JOBS"] - 1))
    for name, value in sorted(LAYOUT.items(), key=lambda item: -len(item[0])):
        source = source.replace(name, str(value))
    assembly = assemble(source)
    entries = ("worker", "end", "post", "wait", "copy", "clock")
    constants = {**LAYOUT, **{f"ENTRY_{name.upper()}": assembly.labels[name] for name in entries}}
    text = assembly.code.hex()
    lines = [
        '"""Native routines of the worker pool, and the layout of the blocks they work on."""',
        "",
        "# Generated by tools/generate_cpu_worker.py, which holds the source and explains it.",
        "",
        "from __future__ import annotations",
        "",
        *[f"{name} = 0x{value:X}" for name, value in constants.items()],
        "",
        "CODE = bytes.fromhex(",
        *[f'    "{text[i : i + 96]}"' for i in range(0, len(text), 96)],
        ")",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(OUTPUT).write_text(generate(), encoding="utf-8")
