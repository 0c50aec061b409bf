# For each line on stdin one round of work, and one line of what came out of it.
use strict;
use warnings;
use Data::Dumper;
use List::Util qw(sum first shuffle);
use POSIX qw(floor strftime);

$| = 1;
$Data::Dumper::Sortkeys = 1;

my $destroyed = 0;
package Shape { sub new { my ($class, %has) = @_; return bless {%has}, $class } sub DESTROY { $destroyed++ } }
package Square { our @ISA = ('Shape'); sub area { $_[0]{side}**2 } }

while (my $round = <STDIN>) {
    my %words;
    for my $i (1 .. 20000) { push @{ $words{ "w" . ($i * 7919 % 5003) } }, { at => $i, text => "x$i" } }
    my @order = sort { @{ $words{$a} } <=> @{ $words{$b} } || $a cmp $b } keys %words;
    my $text = join ' ', map { "$_:" . scalar @{ $words{$_} } } @order;
    (my $changed = $text) =~ s/w(\d+):(\d)/sprintf("%x=%d", $1, $2)/ge;
    my $letters = ($changed =~ tr/a-f//);
    my $areas = sum(map { Square->new(side => $_)->area } 1 .. 500);
    my $twice; $twice = sub { my $n = shift; return $n ? $n + $twice->($n - 1) : 0 };
    my $deep = $twice->(200);
    undef $twice;
    my $caught = 0;
    for my $i (1 .. 200) { eval { die { code => $i } }; $caught += $@->{code} if ref $@ }
    my $dumped = Dumper({ map { $_ => $words{$_} } @order[0 .. 50] });
    my $back = do { our $VAR1; eval $dumped; $VAR1 };
    open my $out, '>', \my $memory or die;
    print $out strftime('%Y-%m-%d', gmtime($_ * 86400)), "\n" for 1 .. 500;
    close $out;
    my @numbers = unpack 'N*', pack 'N*', map { floor($_ / 3) } 1 .. 1000;
    print join(' ', length $changed, $letters, $areas, $deep, $caught, scalar keys %$back, length $memory, sum(@numbers)), "\n";
}
